"""The page in a real browser: what an operator sees and does."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest

from mqtt.peers import CLIENT, OTHER, PINGREQ, PINGRESP, connack, connect, dial, log_in
from proxyproto_rs.mqtt import BlockedClient

from .asking import READ_TOKEN, TOKEN, serving
from .many import fill

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from mqtt.peers import Broker

    from .asking import Api

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Debian's chromium is not installed: apt-get install chromium"
)

expect = playwright.expect


@pytest.fixture(autouse=True)
def patience() -> None:
    """A page that has not changed for so long has failed, even on a machine that does other things too."""
    expect.set_options(timeout=15_000)


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with playwright.async_playwright() as started:
        chromium = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@contextlib.asynccontextmanager
async def opened(
    url: str, *, view: str = "", token: str | None = TOKEN, width: int = 1280, wrong: tuple[int, ...] = ()
) -> AsyncIterator[Page]:
    """The page, logged in. It may ask nobody else, and say nothing on the console; `wrong` are statuses to expect."""
    async with browser() as chromium:
        page = await chromium.new_page(viewport={"width": width, "height": 800})
        said: list[str] = []
        asked: list[str] = []
        page.on(
            "console",
            lambda message: said.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(url + view)
        if token is not None:
            await page.get_by_label("Token").fill(token)
            await page.get_by_role("button", name="Go on").click()
            await expect(page.get_by_role("navigation", name="Views")).to_be_visible()
        yield page
        assert [text for text in said if not any(f"status of {status}" in text for status in wrong)] == []
        assert [other for other in asked if not other.startswith((url, "blob:"))] == []


@contextlib.asynccontextmanager
async def scene(view: str = "", **options: Any) -> AsyncIterator[tuple[Broker, Api, Page]]:
    async with serving() as (broker, api), opened(api.url, view=view, **options) as page:
        yield broker, api, page


def cell(page: Page, text: str) -> Any:
    return page.get_by_role("cell", name=text, exact=True)


async def test_a_wrong_token_is_told_and_a_right_one_lets_in() -> None:
    async with scene(token=None, wrong=(401,)) as (_, _, page):
        await page.get_by_label("Token").fill("guess")
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_role("alert")).to_have_text("the token is wrong")
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.get_by_role("button", name="Forget the token").click()
        await expect(page.get_by_label("Token")).to_be_focused()
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()


async def test_a_new_client_appears_without_a_reload_and_a_link_shows_the_same() -> None:
    async with scene("#/sessions") as (broker, api, page):
        await expect(page.get_by_text("Nothing found")).to_be_visible()
        async with (
            log_in(broker.address(), connect("dev-1")),
            log_in(broker.address(), connect("dev-2"), source=OTHER),
        ):
            await expect(cell(page, "dev-1")).to_be_visible()
            await expect(cell(page, "dev-2")).to_be_visible()
            await page.get_by_label("Address or network").fill("198.51.100.0/24")
            await page.keyboard.press("Enter")
            await expect(cell(page, "dev-1")).to_have_count(0)
            await expect(cell(page, "dev-2")).to_be_visible()
            assert "ip=198.51.100.0%2F24" in page.url
            async with opened(api.url, view="#" + page.url.partition("#")[2]) as other:
                await expect(cell(other, "dev-2")).to_be_visible()
                await expect(other.get_by_text("1–1 of 1")).to_be_visible()
                await expect(other.get_by_label("Address or network")).to_have_value("198.51.100.0/24")


async def test_blocking_an_address_shows_first_whom_it_would_end() -> None:
    async with scene() as (broker, _, page), log_in(broker.address(), connect("dev-1")) as client:
        await page.goto(page.url.partition("#")[0] + f"#/address?ip={CLIENT[0]}")
        await page.get_by_role("button", name="Block this address").click()
        dialog = page.get_by_role("dialog", name="Block")
        await expect(dialog.get_by_text("1 session, 1 user")).to_be_visible()
        await expect(dialog.get_by_text("dev-1")).to_be_visible()
        assert await client.ask(PINGREQ) == PINGRESP, "looking changes nothing"
        await dialog.get_by_role("button", name="Block all of 192.0.2.0/24").click()
        await expect(dialog.get_by_role("textbox", name="Value")).to_have_value("192.0.2.0/24")
        await dialog.get_by_role("textbox", name="Value").fill(CLIENT[0])
        await dialog.get_by_label("Why").fill("noisy")
        await dialog.locator("[name=until]").select_option("1 day")
        await dialog.get_by_role("button", name="Block", exact=True).click()
        await expect(page.get_by_role("button", name="Unblock")).to_be_visible()
        assert await client.end() == b""
        async with dial(broker.address(), connect("dev-1").encode()) as refused:
            assert await refused.end() == b""
        block = broker.service.blocked.get(f"IP_ADDRESS:{CLIENT[0]}")
        assert block is not None
        assert block.description == "noisy"
        assert 86_000_000 < block.expiration_time - int(time.time() * 1000) <= 86_400_000
        await page.get_by_role("button", name="Unblock").click()
        await expect(page.get_by_role("button", name="Block this address")).to_be_visible()
        async with log_in(broker.address(), connect("dev-1")) as again:
            assert await again.ask(PINGREQ) == PINGRESP


async def test_the_network_of_an_ipv6_address_is_blocked_for_ever() -> None:
    async with (
        scene("#/address?ip=2001:db8::7") as (broker, _, page),
        log_in(broker.address(), connect("dev-1"), source=("2001:db8::7", 4711)) as one,
        log_in(broker.address(), connect("dev-2"), source=("2001:db8::8:0:0:8", 4711)) as two,
        log_in(broker.address(), connect("dev-3"), source=("2001:db8:0:1::7", 4711)) as three,
    ):
        await page.get_by_role("button", name="Block this address").click()
        dialog = page.get_by_role("dialog", name="Block")
        await dialog.get_by_role("button", name="Block all of 2001:db8:0:0::/64").click()
        await expect(dialog.get_by_text("2 sessions, 1 user")).to_be_visible()
        await dialog.locator("[name=until]").select_option("for ever")
        await dialog.get_by_role("button", name="Block", exact=True).click()
        assert (await one.end(), await two.end()) == (b"", b"")
        assert await three.ask(PINGREQ) == PINGRESP
        block = broker.service.blocked.get("IP_ADDRESS:2001:db8::/64")
        assert block is not None
        assert block.expiration_time == 0


async def test_a_block_that_would_shut_out_the_proxy_cannot_be_made() -> None:
    async with scene("#/blocked") as (_, _, page):
        await page.get_by_role("button", name="Block …").click()
        dialog = page.get_by_role("dialog", name="Block")
        await dialog.get_by_role("textbox", name="Value").fill("127.0.0.1")
        await expect(dialog.get_by_text("would block the trusted proxy 127.0.0.0/8")).to_be_visible()
        await expect(dialog.get_by_role("button", name="Block", exact=True)).to_be_disabled()
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)


async def test_several_clients_are_disconnected() -> None:
    async with (
        scene("#/sessions") as (broker, _, page),
        log_in(broker.address(), connect("dev-1")) as one,
        log_in(broker.address(), connect("dev-2")) as two,
        log_in(broker.address(), connect("dev-3")) as three,
    ):
        for name in ("dev-1", "dev-2"):
            await page.get_by_label(f"Select {name}").check()
        await page.get_by_role("button", name="Disconnect").click()
        await page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
        await expect(page.get_by_text("2 clients disconnected.")).to_be_visible()
        assert (await one.end(), await two.end()) == (b"", b"")
        assert await three.ask(PINGREQ) == PINGRESP
        await expect(page.get_by_text("1–1 of 1")).to_be_visible()


async def test_all_that_match_a_filter_are_disconnected() -> None:
    async with (
        scene(f"#/sessions?ip={CLIENT[0]}") as (broker, _, page),
        log_in(broker.address(), connect("dev-1")) as one,
        log_in(broker.address(), connect("dev-2")) as two,
        log_in(broker.address(), connect("dev-3"), source=OTHER) as three,
    ):
        await page.get_by_label("Select dev-1").check()
        await page.get_by_role("button", name="Disconnect all 2 that match").click()
        await page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
        await expect(page.get_by_text("2 clients disconnected.")).to_be_visible()
        assert (await one.end(), await two.end()) == (b"", b"")
        assert await three.ask(PINGREQ) == PINGRESP


async def test_the_addresses_of_all_that_match_a_filter_are_blocked_and_unblocked() -> None:
    async with (
        scene("#/sessions?client=bot-") as (broker, _, page),
        log_in(broker.address(), connect("bot-1")) as one,
        log_in(broker.address(), connect("bot-2"), source=OTHER) as two,
        log_in(broker.address(), connect("dev-3"), source=("203.0.113.9", 1)) as three,
    ):
        await page.get_by_label("Select bot-1").check()
        await page.get_by_role("button", name="Block the addresses of all 2 that match").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("2 addresses: 2 sessions, 1 user would end: ")
        await dialog.get_by_label("Why").fill("bots")
        await dialog.get_by_role("button", name="Block").click()
        await expect(page.get_by_text("2 addresses blocked.")).to_be_visible()
        assert (await one.end(), await two.end()) == (b"", b"")
        assert await three.ask(PINGREQ) == PINGRESP
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="203.0.113.77"))
        await page.goto(page.url.partition("#")[0] + "#/blocked?text=bots")
        await page.get_by_label(f"Select {CLIENT[0]}").check()
        await page.get_by_role("button", name="Unblock all 2 that match").click()
        await page.get_by_role("dialog").get_by_role("button", name="Unblock").click()
        await expect(page.get_by_text("2 blocks removed.")).to_be_visible()
        assert [block.value for block in broker.service.blocked._index] == ["203.0.113.77"]


async def test_the_addresses_of_refused_clients_that_match_are_blocked() -> None:
    async with scene("#/refused?reason=bad-credentials") as (broker, _, page):
        for client_id, source in (("a", OTHER), ("b", CLIENT)):
            async with log_in(broker.address(), connect(client_id, password=b"x"), source=source):
                pass
        await page.get_by_label("Select a", exact=True).check()
        await page.get_by_role("button", name="Block the addresses of all 2 that match").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("2 addresses: 0 sessions, 0 users would end now.")
        await dialog.get_by_role("button", name="Block").click()
        await expect(page.get_by_text("2 addresses blocked.")).to_be_visible()
        assert broker.service.blocked.count_by_type()["IP_ADDRESS"] == 2


async def test_what_strangers_write_stays_text() -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">\u202egnp.exe\u0007"
    async with (
        serving(mqtt={"max_connect_size": 70_000}) as (broker, api),
        opened(api.url, view="#/sessions") as page,
        log_in(broker.address(), connect(evil.replace("\u0007", "") + "x" * 65_000)),
    ):
        row = page.get_by_text("<img src=x onerror=")
        await expect(row).to_be_visible()
        text = await row.inner_text()
        assert "\\u{202e}gnp.exe" in text
        assert text.endswith("…")
        assert len(text) < 200
        assert await page.locator("main img").count() == 0
        assert "owned" not in await page.title()


async def test_control_characters_are_shown_as_escapes() -> None:
    async with scene() as (_, _, page):
        shown = await page.evaluate(
            "text => import('/page/dom.js').then(dom => dom.shown(text))", "a\0\x07\n\x9b[1m"
        )
        assert shown == "a\\u{0}\\u{7}\\u{a}\\u{9b}[1m"


async def test_the_curves_tell_their_numbers() -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")):
        async with log_in(broker.address(), connect("guess", password=b"x")):
            pass
        minutes = broker.service._analytics.history
        await broker.until(
            lambda: all(any(getattr(one, name) for one in minutes()) for name in ("accepted", "refused"))
        )
        async with opened(api.url) as page:
            # The minute may have ended meanwhile, so what is now is not asked.
            for title, name in (
                ("Let in", "Let in"),
                ("Refused", "bad-credentials"),
                ("Connected", "Connected"),
            ):
                said = re.compile(rf"^{title}, last 24 hours\. {name}: now [01], at most 1$")
                await expect(page.get_by_role("img", name=said).locator("path")).to_have_count(1)


async def test_servers_behind_are_shown() -> None:
    servers = {"servers": ["127.0.0.1:1"], "proxy_protocol": "off", "check": {"interval": "50ms", "fall": 1}}
    async with serving(backend={"upstream": servers}, amqtt={}) as (broker, api):
        await broker.until(lambda: not any(server["is_up"] for server in broker.service.sources.servers()))
        async with opened(api.url, view="#/listeners") as page:
            row = page.get_by_role("row").filter(has=cell(page, "127.0.0.1:1").first)
            await expect(row.get_by_role("cell").nth(2)).to_have_text("down")


async def test_a_token_that_may_only_read_gets_no_buttons() -> None:
    async with (
        scene("#/sessions", token=READ_TOKEN) as (broker, _, page),
        log_in(broker.address(), connect("dev-1")),
    ):
        await expect(cell(page, "dev-1")).to_be_visible()
        await expect(page.get_by_text("read only")).to_be_visible()
        await expect(page.get_by_role("checkbox", name="Select")).to_have_count(0)
        for view in ("blocked", f"address?ip={CLIENT[0]}"):
            await page.goto(page.url.partition("#")[0] + f"#/{view}")
            await expect(page.get_by_role("button", name=re.compile("Block"))).to_have_count(0)


async def test_refusals_their_rows_and_their_remedy() -> None:
    async with scene("#/refused") as (broker, _, page):
        async with log_in(broker.address(), connect("guess", password=b"x"), source=OTHER) as client:
            assert client.connack == connack(5)
        async with dial(broker.address(), b"\x10\x0c\0\x04MQTT", header=b"") as client:
            assert await client.end() == b""
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value=OTHER[0]))
        await expect(page.get_by_role("row").filter(has_text="guess").get_by_text("blocked")).to_be_visible()
        await page.locator("[name=reason]").select_option("missing-header")
        await expect(page.get_by_text("1–1 of 1")).to_be_visible()
        await page.get_by_role("link", name="Listeners").click()
        await expect(
            page.get_by_text("What to do: switch the header on in the proxy: send-proxy-v2")
        ).to_be_visible()
        await expect(page.get_by_text("10 0c 00 04 4d 51 54 54")).to_be_visible()


async def test_rows_can_be_taken_home(tmp_path: Path) -> None:
    async with (
        scene("#/sessions") as (broker, _, page),
        log_in(broker.address(), connect("=cmd|'/c calc'!A1")),
    ):
        await expect(page.get_by_text("1–1 of 1")).to_be_visible()
        for kind in ("CSV", "JSON"):
            async with page.expect_download() as downloading:
                await page.get_by_role("button", name=kind).click()
            await (await downloading.value).save_as(tmp_path / kind)
        assert json.loads((tmp_path / "JSON").read_text())[0]["clientIpAdr"] == CLIENT[0]
        assert "\r\n'=cmd|" in (tmp_path / "CSV").read_bytes().decode(), "no spreadsheet runs it"


async def test_a_hundred_thousand_sessions() -> None:
    async with scene("#/sessions") as (broker, _, page):
        fill(broker.service, 100_000)
        await expect(page.get_by_text("of 100,000")).to_be_visible()
        await page.get_by_role("link", name="Next page").click()
        await expect(page.get_by_text("51–100 of 100,000")).to_be_visible()
        await page.locator(".pager select").select_option("500")
        await expect(page.get_by_text("1–500 of 100,000")).to_be_visible()
        last = page.get_by_role("row").last
        await expect(last).not_to_be_in_viewport()
        await page.get_by_role("region", name="Sessions").hover()
        for _ in range(40):
            await page.mouse.wheel(0, 1000)
        await expect(last).to_be_in_viewport()
        await page.get_by_label("Address or network").fill("10.0.3.0/24")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("of 256")).to_be_visible()
        await page.get_by_role("button", name="Client").click()
        await expect(cell(page, "dev-999")).to_be_visible()


async def test_counters_open_the_list_that_they_count() -> None:
    async with scene() as (broker, _, page), log_in(broker.address(), connect("dev-1")):
        async with log_in(broker.address(), connect("guess", password=b"x"), source=OTHER):
            pass
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="203.0.113.9"))
        await broker.rows(1)
        start = page.url.partition("#")[0]
        for name, heading, row in (
            ("Connected", "Sessions", "dev-1"),
            ("Sessions", "Sessions", "dev-1"),
            ("Refused", "Refused clients", "guess"),
            ("Blocks in force", "Blocked clients", "203.0.113.9"),
        ):
            await page.goto(start + "#/overview")
            card = page.locator(".cards > div").filter(has=page.get_by_text(name, exact=True))
            await expect(card.get_by_role("link")).to_have_text("1")
            await card.get_by_role("link").click()
            await expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
            await expect(cell(page, row)).to_be_visible()
            await expect(page.get_by_text("1–1 of 1")).to_be_visible()


async def test_lists_that_others_keep_are_shown(tmp_path: Path) -> None:
    lists = [{"file": str(tmp_path / "bad")}, {"file": str(tmp_path / "gone")}]
    (tmp_path / "bad").write_text("203.0.113.0/24\n198.51.100.9\n")
    async with serving(blocklists=lists) as (broker, api), opened(api.url, view="#/blocked") as page:
        await broker.until(lambda: broker.service.blocklists.naming("203.0.113.9"))
        row = page.get_by_role("row").filter(has=cell(page, "bad"))
        await expect(row.get_by_role("cell").nth(2)).to_have_text("2")
        gone = page.get_by_role("row").filter(has=cell(page, "gone"))
        await expect(gone).to_contain_text("No such file or directory")
        await expect(gone).to_contain_text("never")
        await page.goto(page.url.partition("#")[0] + "#/address?ip=203.0.113.9")
        await expect(page.get_by_text("The list bad keeps it out.")).to_be_visible()
        await page.goto(page.url.partition("#")[0] + "#/address?ip=203.0.114.9")
        await expect(page.get_by_role("heading", name="203.0.114.9")).to_be_visible()
        await expect(page.get_by_text("keeps it out")).to_have_count(0)


async def test_everything_of_an_address_stands_on_one_page() -> None:
    async with scene() as (broker, _, page), log_in(broker.address(), connect("dev-1")) as one:
        async with log_in(broker.address(), connect("guess", password=b"x")):
            pass
        await broker.rows(1)
        await page.goto(page.url.partition("#")[0] + f"#/address?ip={CLIENT[0]}")
        for heading in ("Sessions (1)", "Refusals (1)", "Blocks that cover it (0)"):
            await expect(page.get_by_role("heading", name=heading)).to_be_visible()
        for event in ("client.connected", "client.refused"):
            await expect(page.locator("ol.events li").filter(has_text=event)).to_have_count(1)
        await broker.service.blocked.add(BlockedClient(type="IP_ADDRESS", value="192.0.2.0/24"))
        assert await one.end() == b""
        await expect(page.get_by_role("heading", name="Blocks that cover it (1)")).to_be_visible()
        await expect(page.locator("ol.events li").filter(has_text="client.disconnected")).to_have_count(1)
        await page.get_by_role("link", name="refusals of 192.0.2.0/24").click()
        await expect(page.get_by_role("row").filter(has_text="guess").get_by_text("blocked")).to_be_visible()


async def test_chosen_columns_stand_in_the_address_bar() -> None:
    async with scene("#/sessions") as (broker, api, page), log_in(broker.address(), connect("dev-1")):
        await expect(cell(page, "dev-1")).to_be_visible()
        await page.get_by_text("Columns", exact=True).click()
        await page.get_by_label("Port", exact=True).check()
        await expect(page.get_by_role("columnheader", name="Port")).to_be_visible()
        assert "cols=" in page.url
        async with opened(api.url, view="#" + page.url.partition("#")[2]) as other:
            await expect(other.get_by_role("columnheader", name="Port")).to_be_visible()
            await expect(cell(other, str(CLIENT[1]))).to_be_visible()


async def test_a_tab_that_nobody_looks_at_asks_nothing() -> None:
    async with scene() as (_, _, page):
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.clock.install()
        await page.reload()
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        look = "Object.defineProperty(document, 'hidden', {value: HIDDEN, configurable: true});"
        tell = "document.dispatchEvent(new Event('visibilitychange'))"
        await page.evaluate(look.replace("HIDDEN", "true") + tell)
        await page.clock.run_for(5_000)  # a round may have been under way
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.clock.run_for(60_000)
        assert asked == []
        await page.evaluate(look.replace("HIDDEN", "false") + tell)
        async with page.expect_request("**/api/overview"):
            await page.clock.run_for(5_000)


async def test_a_broker_that_has_gone_is_told_and_comes_back_by_itself() -> None:
    async with serving() as (_, api), opened(api.url, wrong=(503,)) as page:
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.route(
            "**/api/**", lambda route: route.fulfill(status=503, json={"message": "the store is away"})
        )
        await expect(page.get_by_text("the store is away")).to_be_visible()
        await page.unroute("**/api/**")
        await expect(page.get_by_text("the store is away")).to_have_count(0)


VIEWS = ["overview", "sessions", "refused", "blocked", "listeners", "nodes", f"address?ip={OTHER[0]}"]


async def test_every_view_is_accessible_and_fits_a_telephone() -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed"
    )
    async with scene() as (broker, _, page), log_in(broker.address(), connect("dev-1")):
        async with log_in(broker.address(), connect("guess", password=b"x"), source=OTHER):
            pass
        await broker.service.blocked.add(
            BlockedClient(type="IP_ADDRESS", value=OTHER[0], description="guesses")
        )
        looks: list[tuple[Literal["light", "dark"], int]] = [("light", 1280), ("dark", 1280), ("light", 400)]
        for scheme, width in looks:
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": 800})
            for view in VIEWS:
                await page.goto(page.url.partition("#")[0] + f"#/{view}")
                heading = view.partition("ip=")[2] or view.capitalize()
                await expect(page.get_by_role("heading", level=1, name=re.compile(heading))).to_be_visible()
                found = await axe.Axe().run(page)
                serious = [
                    one for one in found.response["violations"] if one["impact"] in ("serious", "critical")
                ]
                assert serious == [], (view, scheme, width)
                wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (view, width)


async def test_the_keyboard_is_enough() -> None:
    async with scene() as (_, _, page):
        await page.keyboard.press("Tab")
        for _ in range(12):
            name = await page.evaluate("document.activeElement.textContent")
            if name == "Sessions":
                break
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
        await expect(page.get_by_role("link", name="Sessions")).to_have_attribute("aria-current", "page")
