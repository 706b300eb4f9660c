"""What is shipped: the sdist, the wheel, and the crates have what they must, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "proxyproto_rs"
LICENCES = {"LICENSE-APACHE", "LICENSE-MIT"}
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[0]

# What nobody needs who installs it: tests and their data, what tools leave behind, what was built before.
UNWANTED = re.compile(
    r"(^|/)(tests?|vectors|__pycache__|target|benches|\..*)(/|$)|\.(pyc|pem|key|pcap|o|rlib)$|vectors"
)
# A module of Rust has its tests beside it.
UNIT_TEST = re.compile(r"(^|/)src/.*\.rs$")

BROKER = """\
listeners: {tcp: {bind: "127.0.0.1:0", proxy_protocol: "off"}}
store: "sqlite::memory:"
auth: anonymous
http: {bind: "127.0.0.1:0", token: the-token-of-operators}
"""


def unwanted(names: Iterable[str]) -> list[str]:
    return [name for name in names if UNWANTED.search(name) and not UNIT_TEST.search(name)]


def program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: `make build` brings maturin, and Rust brings cargo")
    return found


def build(tmp_path_factory: pytest.TempPathFactory, *arguments: str) -> Path:
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [program("maturin"), *arguments, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # After `make build` nothing is compiled: it is the same profile in the same directory.
    return zipfile.ZipFile(build(tmp_path_factory, "build", "--release", "--compatibility", "linux"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Each file by its path below the topmost folder."""
    with tarfile.open(build(tmp_path_factory, "sdist")) as archive:
        files = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            if content is not None:
                files[member.name.partition("/")[2]] = content.read()
        return files


def dist_info(name: str) -> str:
    return f"proxyproto_rs-{VERSION}.dist-info/{name}"


def sources() -> set[str]:
    """Return all files of the package, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "python/proxyproto_rs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a checkout of git")
    return {line.removeprefix("python/") for line in listed.stdout.splitlines() if (ROOT / line).exists()}


@pytest.mark.timeout(600)
def test_the_wheel_has_the_package_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {name for name in names if name.startswith("proxyproto_rs/")}
    assert package == sources() | {"proxyproto_rs/_core.abi3.so"}
    assert {
        "proxyproto_rs/py.typed",
        "proxyproto_rs/_core.pyi",
        "proxyproto_rs/mqtt/http/static/index.html",
    } <= package
    assert {name.partition("/")[0] for name in names} == {"proxyproto_rs", dist_info("").rstrip("/")}
    assert unwanted(names) == []


@pytest.mark.timeout(600)
def test_the_wheel_has_its_licences_and_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    for licence in LICENCES:
        assert wheel.read(dist_info(f"licenses/{licence}")) == (ROOT / licence).read_bytes()
    metadata = message_from_bytes(wheel.read(dist_info("METADATA")))
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "MIT OR Apache-2.0"
    assert set(metadata.get_all("License-File", [])) == LICENCES
    # The core needs nothing; what is needed stands behind an extra.
    assert [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line] == []


@pytest.mark.timeout(600)
def test_the_wheel_lists_the_crates_that_are_linked_into_it(wheel: zipfile.ZipFile) -> None:
    # PEP 770.
    bill: dict[str, Any] = json.loads(wheel.read(dist_info("sboms/proxyproto-python.cyclonedx.json")))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"]: component["version"] for component in bill["components"]}
    lock = (ROOT / "Cargo.lock").read_text()
    for crate in ("pyo3", "tokio", "rustls", "rmqtt", "proxyproto-codec", "proxyproto-acceptor"):
        assert f'name = "{crate}"\nversion = "{listed[crate]}"' in lock
    assert [name for name in listed if name in {"proptest", "criterion"}] == []


@pytest.mark.timeout(600)
def test_the_wheel_is_no_larger_than_promised(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).stat().st_size < 5 * 1024 * 1024


@pytest.mark.timeout(600)
def test_the_installed_wheel_serves_the_page(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    assert wheel.filename is not None
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    install = [str(programs / "pip"), "install", "--quiet", "--no-index", "--no-deps", wheel.filename]
    subprocess.run(install, cwd=tmp_path, check=True)
    # What the extra brings is taken from here, behind the wheel's own package.
    (installed,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (installed / "extra.pth").write_text(sysconfig.get_path("purelib"))
    where = [str(programs / "python"), "-c", "import proxyproto_rs; print(proxyproto_rs.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(installed / "proxyproto_rs" / "__init__.py")

    (tmp_path / "broker.yaml").write_text(BROKER)
    command = [str(programs / "proxyproto-rs"), "broker", "--config", "broker.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stderr is not None
        try:
            lines = itertools.takewhile(lambda line: "started listeners=" not in line, broker.stderr)
            (url,) = re.findall(r"http url=(\S+)/", "".join(lines))
            static = "proxyproto_rs/mqtt/http/static/"
            for name in [name for name in wheel.namelist() if name.startswith(static)]:
                file = name.removeprefix(static)
                path = {"index.html": "/", "favicon.svg": "/favicon.ico"}.get(file, f"/page/{file}")
                assert fetched(url + path) == wheel.read(name), file
            assert json.loads(fetched(f"{url}/api/openapi.json"))["info"]["version"] == VERSION
        finally:
            broker.terminate()


def fetched(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": "Bearer the-token-of-operators"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.timeout(120)
def test_the_sdist_builds_and_nothing_else(sdist: dict[str, bytes]) -> None:
    assert {"Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "PKG-INFO", *LICENCES} <= set(sdist)
    assert sources() <= {name.removeprefix("python/") for name in sdist}
    crates = {path.parent.name for path in (ROOT / "rust").glob("*/Cargo.toml")} - {"fuzz", "no_std"}
    assert {name.split("/")[1] for name in sdist if name.startswith("rust/")} == crates
    assert unwanted(sdist) == []
    for licence in LICENCES:
        assert sdist[licence] == (ROOT / licence).read_bytes()


@pytest.mark.parametrize("crate", ["codec", "mqtt", "acceptor", "gateway", "broker"])
def test_a_crate_has_its_licences_and_no_tests(crate: str) -> None:
    listed = subprocess.run(
        [
            program("cargo"),
            "package",
            "--list",
            "--allow-dirty",
            "--offline",
            "--package",
            f"proxyproto-{crate}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = set(listed.stdout.splitlines())
    assert {"Cargo.toml", "README.md", "src/lib.rs", *LICENCES} <= files
    assert unwanted(files - {".cargo_vcs_info.json"}) == []
