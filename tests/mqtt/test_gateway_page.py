"""docs/gateway.md says what is: its configuration loads, and shows every key with its default."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from interop.pages import examples, read
from proxyproto_rs.mqtt import BrokerConfig
from proxyproto_rs.mqtt.config import AuthConfig, CheckConfig, UpstreamConfig, load
from proxyproto_rs.mqtt.model.reasons import REASONS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "gateway.md"


def test_the_configuration_shows_every_key_with_its_default(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(examples(PAGE)["upstream"])
    config = load(file, environ={}).config
    written = config.backend.upstream
    assert written is not None
    assert written == UpstreamConfig(servers=written.servers)
    tree = yaml.safe_load(examples(PAGE)["upstream"])["backend"]["upstream"]
    assert tree.keys() == UpstreamConfig.model_fields.keys()
    assert tree["check"].keys() == CheckConfig.model_fields.keys()
    silent = BrokerConfig.model_validate({"listeners": {"tcp": {}}})
    for key in ("workers", "auth", "forward_password"):
        assert getattr(config, key) == getattr(silent, key), key


def test_the_list_of_who_is_asked_has_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    servers = 'listeners: {tcp: {}}\nbackend: {upstream: {servers: ["a:1883"]}}\n'
    file.write_text(servers + examples(PAGE)["auth"])
    kinds = {key for source in load(file, environ={}).config.auth for key in source.model_fields_set}
    assert kinds == AuthConfig.model_fields.keys()


def test_the_answers_of_mqtt_3_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| ([^|]+) \|$", read(PAGE), re.MULTILINE)
    assert len(rows) >= 7
    for names, code, _ in rows:
        reasons = re.findall(r"`([\w-]+)`", names)
        codes: list[int | None] = [int(number) for number in re.findall(r"\d", code)] or [None]
        codes *= len(reasons) if len(codes) == 1 else 1
        assert [REASONS[reason].connack for reason in reasons] == codes, names
