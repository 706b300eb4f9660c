"""docs/embedded.md says what is: its configuration loads, and shows every key with its default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from interop.pages import examples
from proxyproto_rs.mqtt import BrokerConfig
from proxyproto_rs.mqtt.config import AclRule, EmbeddedConfig

if TYPE_CHECKING:
    from pathlib import Path


def test_all_keys_are_shown_with_their_defaults(tmp_path: Path) -> None:
    text = examples("embedded.md")["embedded"]
    (tmp_path / "users.txt").write_text("")
    file = tmp_path / "broker.yaml"
    file.write_text(text)
    config = BrokerConfig.load(file, environ={})
    assert config.backend.embedded == EmbeddedConfig()
    tree = yaml.safe_load(text)
    assert tree["backend"]["embedded"].keys() == EmbeddedConfig.model_fields.keys()
    assert {key for rule in tree["acl"] for key in rule} == AclRule.model_fields.keys() - {"clients"}
