"""contrib/compose/: the file is one that Compose reads, everything it names is there, and it holds no password."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from interop.proxies import find_program
from mqtt.backend.embedded.nodes import is_built
from proxyproto_rs.mqtt.config import load

from .topology import COMPOSE, NODES
from .units import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILE = COMPOSE / "compose.yaml"
TREE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = TREE["services"]
PROFILES = ["rabbitmq", "embedded"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([COMPOSE / "make-secrets", directory], check=True)
    return directory


def test_compose_reads_the_file() -> None:
    """The schema is Compose's own, in check-jsonschema."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_that_is_mounted_is_there() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = [
        volume.replace("${COMPOSE_PROFILES:?copy .env.example to .env}", profile).split(":")[0]
        for profile in PROFILES
        for volume in volumes
    ]
    files = {name for name in mounted if name.startswith(".")}
    assert len(files) > 5
    assert [name for name in files if not (COMPOSE / name).is_file()] == []
    assert {name for name in mounted if not name.startswith(".")} == TREE["volumes"].keys()


def test_every_secret_is_made_and_nobody_elses_to_read(secrets: Path) -> None:
    files = {secret["file"].removeprefix("./secrets/") for secret in TREE["secrets"].values()}
    made = {path.name: path for path in secrets.iterdir()}
    assert files <= made.keys()
    assert made.keys() - files == {"device"}  # the first user's password is for people
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    asked = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert asked == TREE["secrets"].keys()


def test_secrets_stay_when_they_are_made_again_and_differ_elsewhere(secrets: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run([COMPOSE / "make-secrets", secrets], check=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    subprocess.run([COMPOSE / "make-secrets", tmp_path / "other"], check=True)
    assert not [name for name, text in before.items() if (tmp_path / "other" / name).read_bytes() == text]


def test_no_file_holds_a_password() -> None:
    variables = [
        (name, value)
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASS|SECRET|TOKEN|COOKIE", name) and not name.endswith("_FILE")
    ]
    assert variables == []
    for path in COMPOSE.iterdir():
        if path.is_file() and path.name != "make-secrets":
            assert not re.search(r"default_pass|password[:=]|PASSWORD=", path.read_text()), path


def test_git_and_docker_keep_secrets_out() -> None:
    assert {"/.env", "/secrets/"} <= set((COMPOSE / ".gitignore").read_text().split())
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"  # contrib/ is not taken back in


def test_images_have_versions_and_ours_is_this_one() -> None:
    images = {service["image"] for service in SERVICES.values()}
    assert [
        image for image in images if not re.search(r":v?\$?[{\w]*[\d:.-]+", image) or "latest" in image
    ] == []
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    ours = f"proxyproto-rs-broker:${{VERSION:-{version}}}"
    assert {SERVICES[name]["image"] for name in NODES} == {ours}
    assert f"VERSION={version}\n" in (COMPOSE / ".env.example").read_text()


def test_what_can_is_hardened() -> None:
    for name in ("haproxy", "prometheus", *NODES):
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service or name in NODES, name  # theirs is the image's
    # Only HAProxy is for everybody.
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"haproxy": ["1883:1883", "8883:8883"], "broker1": ["127.0.0.1:8083:8083"]}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_brokers_know_the_other_services(profile: str) -> None:
    if profile == "embedded" and not is_built():
        pytest.skip("the extension is built without clusters, which need protoc")
    variables = {"HOSTNAME": "broker1", "NODE": "1"}
    config = load(str(COMPOSE / f"broker.{profile}.yaml"), environ=variables).config
    address = SERVICES["haproxy"]["networks"]["front"]["ipv4_address"]
    for listener in config.listeners.values():
        assert [str(network) for network in listener.proxy.trusted or ()] == [f"{address}/32"]
    assert config.node_id == SERVICES["broker1"]["hostname"]
    assert set(NODES) <= set(config.http.hosts)
    assert config.mqtt.drain * 2 <= int(SERVICES["broker1"]["stop_grace_period"].removesuffix("s"))
    if config.backend is not None and config.backend.upstream is not None:
        assert {server.split(":")[0] for server in config.backend.upstream.servers} <= SERVICES.keys()
    targets = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"{name}:{config.http.bind.port}" for name in NODES]}]


def test_the_nodes_of_a_cluster_are_among_themselves() -> None:
    tree = yaml.safe_load((COMPOSE / "broker.embedded.yaml").read_text())
    peers = tree["backend"]["embedded"]["cluster"]["peers"]
    named = {
        int(service["environment"]["NODE"]): service["networks"]["cluster"]["aliases"]
        for service in SERVICES.values()
        if "cluster" in service["networks"]
    }
    assert {node: [address.partition(":")[0]] for node, address in peers.items()} == named
    assert TREE["networks"]["cluster"]["internal"] is True
    assert [name for name, service in SERVICES.items() if "cluster" in service["networks"]] == list(NODES)


def test_nobody_is_given_haproxys_address() -> None:
    """The brokers start first, and Docker would give them the lowest addresses."""
    (pool,) = TREE["networks"]["front"]["ipam"]["config"]
    address = ipaddress.ip_address(SERVICES["haproxy"]["networks"]["front"]["ipv4_address"])
    assert address in ipaddress.ip_network(pool["subnet"])
    assert address not in ipaddress.ip_network(pool["ip_range"])
    assert str(address) != pool["gateway"]


def test_haproxy_reads_its_file() -> None:
    program = find_program("haproxy")
    done = subprocess.run(
        [program, "-c", "-f", COMPOSE / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if "[WARNING]" in line or "[ALERT]" in line]
    # The names are those of the containers' network.
    assert (done.returncode, [line for line in lines if "could not resolve address 'broker" not in line]) == (
        0,
        [],
    )
    servers = re.findall(r"^    server (\w+) (\w+):(\d+)$", (COMPOSE / "haproxy.cfg").read_text(), re.M)
    assert servers == [(name, name, port) for port in ("1883", "8883") for name in NODES]


def test_promtool_takes_its_file(tmp_path: Path, secrets: Path) -> None:
    program = find_program("promtool")
    text = (COMPOSE / "prometheus.yml").read_text().replace("/run/secrets", str(secrets))
    rules = ROOT / "contrib" / "prometheus" / "proxyproto-rs.rules.yml"
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / rules.name).write_text(rules.read_text())
    done = subprocess.run(
        [program, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The alert for a node that is away goes by the name of the job.
    (job,) = re.findall(r"job_name: (\S+)", text)
    (alert,) = re.findall(r'up\{job=~"([^"]+)"\}', rules.read_text())
    assert re.fullmatch(alert, job)


def test_the_certificate_has_the_names_of_the_brokers(secrets: Path) -> None:
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", secrets / "server.pem"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(NODES) <= set(re.findall(r"DNS:(\w+)", shown.stdout)), json.dumps(shown.stdout)
