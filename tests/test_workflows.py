"""The files for continuous integration: a linter finds nothing, actions are pinned, and all that is named is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield f"{path.name}: {name}", job


def commands() -> str:
    return "\n".join(step.get("run", "") for _, job in jobs() for step in job.get("steps", ()))


def test_zizmor_finds_nothing() -> None:
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("zizmor is not installed (pip install --group lint)")
    options = ["--offline", "--no-progress", "--no-config", "--persona", "pedantic", "--color", "never"]
    options += ["--min-severity", "medium"]
    ended = subprocess.run(
        [program, *options, str(ROOT / ".github")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_with_their_version_beside_it(path: Path) -> None:
    foreign = re.findall(r"uses: (?!\./)(.*)", path.read_text())
    assert [
        line for line in foreign if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    ] == []


def test_one_version_of_each_action_is_used() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (?!\./)(\S+)", path.read_text())}
    assert len(used) == len({line.partition("@")[0] for line in used})


def test_no_job_runs_for_ever_or_may_do_more_than_it_says() -> None:
    for name, job in jobs():
        assert "permissions" in job, name
        assert "timeout-minutes" in job or "uses" in job, name


def test_targets_and_files_that_are_named_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    stamps = {"$(STAMPS)/built": ".make/built"}
    for target in re.findall(r"^make (\S+)$", commands(), re.M):
        names = {f"{name}:" for name in (target, *(raw for raw, real in stamps.items() if real == target))}
        assert any(f"\n{name}" in makefile for name in names), target
    for named in re.findall(r"(?<![\w/.])((?:tests|\.ci)/[\w./-]+)", commands()):
        assert (ROOT / named).exists(), named


def test_crates_that_are_checked_are_all_that_are_published() -> None:
    published = set()
    for manifest in (ROOT / "rust").glob("*/Cargo.toml"):
        text = manifest.read_text()
        if "publish = false" not in text:
            published.add(re.findall(r'^name = "(.+)"$', text, re.M)[0])
    assert set(re.findall(r"--package (\S+)", commands())) == published


def test_pythons_are_all_that_the_package_names() -> None:
    classified = set(re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text()))
    (matrix,) = [job["strategy"]["matrix"]["python"] for name, job in jobs() if name == "ci.yml: pythons"]
    assert classified <= set(matrix)


def same_version(tag: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [directory / ".ci" / "same-version", tag], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("tag", "heading", "expected"),
    [
        ("v1.2.3", "## 1.2.3, 2026-12-01", None),
        ("1.2.3", "## 1.2.3, 2026-12-01", "the tag is 1.2.3, and Cargo.toml has the version 1.2.3"),
        ("v1.2.4", "## 1.2.4, 2026-12-01", "the tag is v1.2.4, and Cargo.toml has the version 1.2.3"),
        ("v1.2.3", "## 1.2.3, unreleased", 'CHANGELOG.md has no heading "## 1.2.3, YEAR-MONTH-DAY"'),
        ("v1.2.3", "## 1x2x3, 2026-12-01", 'CHANGELOG.md has no heading "## 1.2.3, YEAR-MONTH-DAY"'),
    ],
)
def test_a_release_needs_one_version_everywhere(
    tag: str, heading: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "same-version", tmp_path / ".ci")
    (tmp_path / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    ended = same_version(tag, tmp_path)
    assert ended.returncode == (0 if expected is None else 1)
    assert (expected or "") in ended.stderr
