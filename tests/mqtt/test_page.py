"""docs/mqtt.md says what is: its configuration loads, its lists are complete, its promises have tests."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from interop.pages import examples, read, run_example, text
from proxyproto_rs.mqtt import BrokerConfig
from proxyproto_rs.mqtt.config import variables
from proxyproto_rs.mqtt.model.reasons import DISCONNECT_REASONS, REASONS
from proxyproto_rs.mqtt.telling.audit import AuditEvent

from .telling.test_logs import LINES
from .test_collector import EMBEDDED, FAMILIES

PAGE = "mqtt.md"
HERE = Path(__file__).parent


def load(name: str, directory: Path) -> BrokerConfig:
    path = directory / "broker.yaml"
    path.write_text(examples(PAGE)[name])
    (directory / "users.txt").write_text("")
    return BrokerConfig.load(path, environ={})


def test_the_first_configuration(tmp_path: Path) -> None:
    config = load("first", tmp_path)
    assert {listener.proxy_protocol for listener in config.listeners.values()} == {"required"}
    assert [str(network) for network in config.listeners["ssl"].proxy.trusted or ()] == ["10.0.0.0/24"]


def test_all_keys_are_shown_with_their_defaults(tmp_path: Path) -> None:
    written = load("all", tmp_path)
    silent = BrokerConfig.model_validate({"listeners": {"tcp": {}}})
    examples_of_a_site = {"listeners", "tls_defaults", "auth"}
    for section in type(silent).model_fields.keys() - examples_of_a_site:
        assert getattr(written, section) == getattr(silent, section), section
    tree = yaml.safe_load(examples(PAGE)["all"])
    for section, value in tree.items():
        model = getattr(silent, section)
        if section not in ("listeners", "access", "backend") and hasattr(model, "model_dump"):
            assert value.keys() == type(model).model_fields.keys(), section


@pytest.mark.parametrize("name", ["access", "forwarded"])
def test_parts_of_a_configuration_are_valid(name: str) -> None:
    part = {"listeners": {"tcp": {}}, **yaml.safe_load(examples(PAGE)[name])}
    BrokerConfig.model_validate(part)


def test_the_program_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broker.yaml").write_text(
        "listeners: {tcp: {bind: '127.0.0.1:0'}}\nstore: 'sqlite::memory:'\n"
        "amqtt: {plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {}}}\n"
    )
    assert asyncio.run(run_example(PAGE, "service")["serve"]()) == ((), (), ())


def test_every_example_is_run() -> None:
    assert list(examples(PAGE)) == ["first", "all", "access", "forwarded", "service"]


def test_log_lines_are_the_codes_own() -> None:
    shown = text(PAGE, "lines").splitlines()
    assert set(shown) <= {line for _, line in LINES}


def test_lists_are_complete() -> None:
    prose = re.sub(r"^```.*?^```$", "", read(PAGE), flags=re.MULTILINE | re.DOTALL)
    words = set(re.findall(r"`([^`]+)`", prose))
    outcomes = read("reference/outcomes.md")
    assert [reason for reason in REASONS if reason not in words and f"`{reason}`" not in outcomes] == []
    assert set(DISCONNECT_REASONS) <= words
    assert {name for name, _, _ in FAMILIES} | {name for name, _ in EMBEDDED} <= words
    assert set(get_args(AuditEvent)) <= words


CODES = re.compile(r"^\| (?P<reasons>`.+?) \| (?P<connack>[\d, ]+|none) \|(?P<counts>.*)\|$", re.MULTILINE)


def test_the_table_of_reasons_is_the_codes_own() -> None:
    seen = set()
    for row in CODES.finditer(read(PAGE)):
        reasons = [name for name in re.findall(r"`([\w-]+)`", row["reasons"]) if name in REASONS]
        codes = re.findall(r"\d", row["connack"]) or [None]
        codes *= len(reasons) if len(codes) == 1 else 1
        for reason, code in zip(reasons, codes, strict=True):
            assert REASONS[reason].connack == (None if code is None else int(code)), reason
            assert REASONS[reason].counts == (row["counts"].strip() == "yes"), reason
            seen.add(reason)
    assert len(seen) >= 12


PROMISES = re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", read(PAGE))


@pytest.mark.parametrize(("file", "name"), PROMISES, ids=[name for _, name in PROMISES])
def test_a_promise_has_its_test(file: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", (HERE / file).read_text(), re.MULTILINE)


def test_variables_are_those_of_the_code() -> None:
    code = Path(variables.__file__).read_text()
    page = read(PAGE)
    for variable in re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', code):
        assert f"`{variable}`" in page or variable == "HTTP", variable
