"""Three brokers in processes of their own as one cluster. What rmqtt does otherwise is told in docs/embedded.md."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from mqtt.peers import DISCONNECT, WELCOME_BACK, publish, subscribe, until

from .nodes import PATIENCE, cluster, crosses, is_built

if TYPE_CHECKING:
    from pathlib import Path

    from mqtt.peers import Client

pytestmark = [
    pytest.mark.skipif(not is_built(), reason="the extension is built without clusters, which need protoc"),
    pytest.mark.timeout(180),
]


async def send_two(client: Client, topic: str, message: bytes, packet_id: int) -> None:
    """Publish with QoS 2, to the end of it."""
    number = packet_id.to_bytes(2, "big")
    assert await client.ask(publish(topic, message, 2, packet_id)) == b"\x50\x02" + number
    assert await client.ask(b"\x62\x02" + number) == b"\x70\x02" + number


async def test_messages_of_each_quality_cross(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as (one, two, three),
        one.client("sender") as sender,
        two.client("near") as near,
        three.client("far") as far,
    ):
        for receiver in (near, far):
            await crosses(sender, receiver, "t/#")
        while (await near.message()).payload != b"last":  # the second sentinel
            pass
        sender.send(publish("t/0", b"zero"))
        assert (await sender.ask(publish("t/1", b"one", 1, 7))) == b"\x40\x02\x00\x07"
        await send_two(sender, "t/2", b"two", 8)
        for receiver in (near, far):
            got = [await receiver.message() for _ in range(3)]
            assert sorted((m.topic, m.payload, m.qos) for m in got) == [
                ("t/0", b"zero", 0),
                ("t/1", b"one", 1),
                ("t/2", b"two", 2),
            ]


async def test_a_retained_message_is_on_every_node(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (one, two, three), one.client("sender") as sender:
        async with two.client("witness") as witness:
            await crosses(sender, witness, "kept/#")
            assert await sender.ask(publish("kept/a", b"now", 1, 7, retain=True)) == b"\x40\x02\x00\x07"
            assert (await witness.message()).payload == b"now"
        await three.end()
        await three.start()
        for node in (two, three):
            async with node.client("late") as late:
                await until_retained(late, "kept/#", b"now")


async def until_retained(client: Client, topic: str, payload: bytes) -> None:
    """A node that has come back gets them from the others two seconds later."""
    for _ in range(int(PATIENCE)):
        client.send(subscribe(topic, qos=1))
        try:
            message = await asyncio.wait_for(client.message(), 1)
        except asyncio.TimeoutError:
            continue
        assert (message.payload, message.retain) == (payload, True)
        return
    raise AssertionError(f"nothing is retained for {topic}")


async def test_a_shared_subscription_takes_each_message_once(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as (one, two, three),
        one.client("sender") as sender,
        two.client("a") as a,
        three.client("b") as b,
    ):
        for member in (a, b):
            await crosses(sender, member, f"ready/{id(member)}")
            await member.ask(subscribe("$share/group/job/#", qos=1))
            await crosses(sender, member, f"joined/{id(member)}")
        for number in range(40):
            await sender.ask(publish(f"job/{number}", b"%d" % number, 1, number + 1))
        got: list[int] = []
        shares = [0, 0]
        while len(got) < 40:
            for index, member in enumerate((a, b)):
                while True:
                    try:
                        message = await asyncio.wait_for(member.message(), 0.3)
                    except asyncio.TimeoutError:
                        break
                    got.append(int(message.payload))
                    shares[index] += 1
        assert sorted(got) == list(range(40))
        assert shares == [20, 20]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_login_on_another_node_takes_over(version: int, tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as (one, two, _),
        one.client("dev", version=version) as first,
        two.client("dev", version=version),
    ):
        assert await first.end() == b""  # of MQTT 5 it should be e0 01 8e: rmqtt closes without a word
        await until(lambda: one.ends("dev") == ["taken-over"], PATIENCE)


async def test_a_kept_session_moves_with_what_waits_for_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (one, two, three), three.client("sender") as sender:
        async with one.client("kept", clean=False) as kept:
            await crosses(sender, kept, "q/#")
            kept.send(DISCONNECT)
            await kept.end()
        await until(lambda: one.ends("kept") == ["disconnect"], PATIENCE)
        for number in range(5):
            await sender.ask(publish("q/m", b"%d" % number, 1, number + 1))
        async with two.client("kept", clean=False) as kept:
            assert kept.connack == WELCOME_BACK
            assert {(await kept.message()).payload for _ in range(5)} == {b"%d" % n for n in range(5)}
            await crosses(sender, kept, "q/#")


@pytest.mark.parametrize("killed", [0, 2], ids=["the-first", "another"])
async def test_a_killed_node_comes_back_and_disturbs_nobody(killed: int, tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        gone = nodes[killed]
        near, far = (node for node in nodes if node is not gone)
        async with near.client("sender") as sender, far.client("receiver") as receiver:
            await crosses(sender, receiver, "t")
            async with gone.client("member") as member:
                await member.ask(subscribe("$share/group/job", qos=1))
                await crosses(sender, member, "ready")
                await gone.end()
            sender.send(publish("t", b"at once"))
            assert (await receiver.message()).payload == b"at once"
            await far.until_lets_in()
            async with far.client("new") as new:
                await crosses(sender, new, "after")
            await gone.start()
            async with gone.client("back") as back:
                await crosses(back, receiver, "from")
                await crosses(sender, back, "to")
            # The member of before has no share any more.
            await receiver.ask(subscribe("$share/group/job", qos=1))
            await crosses(sender, receiver, "joined")
            for number in range(6):
                await sender.ask(publish("job", b"%d" % number, 1, number + 1))
            assert {(await receiver.message()).payload for _ in range(6)} == {b"%d" % n for n in range(6)}


async def test_a_stopped_node_is_cut_off_and_comes_back(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path) as (one, two, three),
        one.client("sender") as sender,
        two.client("receiver") as receiver,
        three.client("cut") as cut,
    ):
        await crosses(sender, receiver, "t")
        await crosses(sender, cut, "t/cut")
        three.signal(signal.SIGSTOP)
        for number in range(20):
            assert await sender.ask(publish("t", b"%d" % number, 1, number + 1))
        # rmqtt keeps no order between nodes.
        assert {(await receiver.message()).payload for _ in range(20)} == {b"%d" % n for n in range(20)}
        await two.until_lets_in()
        async with two.client("new") as new:
            await crosses(sender, new, "after")
        three.signal(signal.SIGCONT)
        await crosses(sender, cut, "t/again")


async def test_what_is_no_peer_stops_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        for node in nodes:
            for port in node.peer_ports:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)
                writer.close()
        async with nodes[0].client("sender") as sender, nodes[2].client("receiver") as receiver:
            await crosses(sender, receiver, "t")
