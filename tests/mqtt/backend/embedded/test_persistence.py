"""What the embedded broker keeps on the disk, seen from outside: a real process, killed, and real clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.backend.embedded.persistence import not_writable

if TYPE_CHECKING:
    from pathlib import Path


def test_a_place_that_could_be_used_is_told_from_others(tmp_path: Path) -> None:
    assert not_writable(tmp_path) is None
    assert not_writable(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()
    missing = tmp_path / "not" / "there"
    assert not_writable(missing) == f"{missing.parent} is not a directory that is there: make it first"
    file = tmp_path / "file"
    file.write_text("")
    assert not_writable(file) == "must be a directory, as the broker makes files in it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_where_nothing_may_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not_writable(tmp_path) == "the broker may not write there"
    assert not_writable(tmp_path / "new") == f"may not be made in {tmp_path}"
