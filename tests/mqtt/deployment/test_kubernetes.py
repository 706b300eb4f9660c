"""contrib/kubernetes/: Kubernetes' own schemas take the manifests, and what one names, another has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from mqtt.http.asking import serving
from mqtt.peers import connect, log_in
from proxyproto_rs.mqtt.config import BrokerConfig, load
from proxyproto_rs.mqtt.config.sections import MqttConfig
from proxyproto_rs.mqtt.http.application import ROUTES

from .image import STATE, argument
from .topology import COMPOSE
from .units import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MANIFESTS = ROOT / "contrib" / "kubernetes"
PAGE = ROOT / "docs" / "howto" / "kubernetes.md"
OLDEST = "1.30"
"""The oldest version that is checked; the newest is the newest that kubernetes-validate knows."""

KUSTOMIZATION: dict[str, Any] = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
RESOURCES: list[dict[str, Any]] = [
    resource
    for name in KUSTOMIZATION["resources"]
    for resource in yaml.safe_load_all((MANIFESTS / name).read_text())
]


def the(kind: str, name: str = "broker") -> dict[str, Any]:
    (found,) = [one for one in RESOURCES if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


POD: dict[str, Any] = the("Deployment")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
LABELS: dict[str, str] = the("Deployment")["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("version", [OLDEST, "newest"])
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_kubernetes_takes_it(resource: dict[str, Any], version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "newest" else version
    kubernetes_validate.validate(resource, wanted, strict=True)


def test_the_validator_would_find_a_mistake() -> None:
    wrong = {**the("PodDisruptionBudget"), "spec": {"maxUnavailible": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_manifest_is_applied() -> None:
    there = {path.name for path in MANIFESTS.glob("*.yaml")}
    assert there - {"kustomization.yaml", "broker.yaml"} == set(KUSTOMIZATION["resources"])
    (image,) = KUSTOMIZATION["images"]
    assert CONTAINER["image"] == image["name"]
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    assert image["newTag"] == version


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_makes_of_it_what_kubernetes_takes(tmp_path: Path) -> None:
    """By the two commands of the file. What is generated has a hash in its name, and the pods name it by that."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    manifests = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, manifests, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([COMPOSE / "make-secrets", manifests / "secrets"], check=True)
    made = subprocess.run(
        ["kubectl", "kustomize", manifests], capture_output=True, text=True, check=True
    ).stdout
    resources = list(yaml.safe_load_all(made))
    for resource in resources:
        kubernetes_validate.validate(resource, OLDEST, strict=True)
        assert resource["metadata"].get("namespace", "mqtt") == "mqtt"
    assert {one["kind"] for one in resources} == {one["kind"] for one in RESOURCES} | {"ConfigMap", "Secret"}
    generated = {one["metadata"]["name"] for one in resources if one["kind"] in ("ConfigMap", "Secret")}
    (deployment,) = [one for one in resources if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (image,) = KUSTOMIZATION["images"]
    named = {
        volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
        for volume in pod["volumes"]
    } - {None}
    assert named == generated
    assert all(re.fullmatch(r"broker(-tls)?-[0-9a-z]{10}", name) for name in generated)
    assert pod["containers"][0]["image"] == f"{image['newName']}:{image['newTag']}"


def test_selectors_find_the_pods() -> None:
    (common,) = [labels["pairs"] for labels in KUSTOMIZATION["labels"]]
    for labels in (
        common,
        the("Deployment")["spec"]["selector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        the("Service", "mqtt")["spec"]["selector"],
        the("Service", "mqtt-inside")["spec"]["selector"],
        the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert labels == LABELS
    assert (
        the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == the("Deployment")["metadata"]["name"]
    )


def test_ports_are_those_of_the_configuration() -> None:
    config = configuration()
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    listeners = {name: listener.bind.port for name, listener in config.listeners.items()}
    assert ports == {
        "mqtt": listeners["tcp"],
        "mqtts": listeners["ssl"],
        "inside": listeners["inside"],
        "http": config.http.bind.port,
    }
    named = [
        port["targetPort"]
        for name in ("mqtt", "mqtt-inside")
        for port in the("Service", name)["spec"]["ports"]
    ]
    named += [port["port"] for rule in the("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    assert set(named) == ports.keys()
    annotations = the("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["http"])


def test_whoever_is_believed_is_let_in_and_nobody_else() -> None:
    config = configuration()
    first, *others = the("NetworkPolicy")["spec"]["ingress"]
    for name in ("tcp", "ssl"):
        listener = config.listeners[name]
        assert listener.proxy_protocol == "required"
        trusted = [str(network) for network in listener.proxy.trusted or ()]
        assert [peer["ipBlock"]["cidr"] for peer in first["from"]] == trusted
    assert not [port for rule in others for port in rule["ports"] if port["port"] in ("mqtt", "mqtts")]
    assert config.listeners["inside"].proxy_protocol == "off"
    attributes = the("Service", "mqtt")["metadata"]["annotations"]
    assert (
        attributes["service.beta.kubernetes.io/aws-load-balancer-target-group-attributes"]
        == "proxy_protocol_v2.enabled=true,preserve_client_ip.enabled=false"
    )
    assert attributes["service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"] == "ip"


def test_volumes_hold_what_the_configuration_names(tmp_path: Path) -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    mounts = {mount["mountPath"]: volumes.pop(mount["name"]) for mount in CONTAINER["volumeMounts"]}
    assert volumes == {}
    assert {STATE, "/tmp"} <= mounts.keys()
    generated = {
        one["name"]: {file.partition("=")[0] for file in one["files"]}
        for one in KUSTOMIZATION["secretGenerator"]
    }
    paths = re.findall(r"(/run/secrets/\S+)/([\w.]+)", (MANIFESTS / "broker.yaml").read_text())
    assert paths
    for folder, name in paths:
        assert name in generated[mounts[folder]["secret"]["secretName"]]
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    assert mounts["/etc/proxyproto-rs"]["configMap"]["name"] == generator["name"]
    assert generator["files"] == ["broker.yaml"]
    # What is generated comes from files that make-secrets writes.
    sources = {file.rpartition("/")[2] for one in KUSTOMIZATION["secretGenerator"] for file in one["files"]}
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run([COMPOSE / "make-secrets", tmp_path / "secrets"], check=True)
    assert sources <= {path.name for path in (tmp_path / "secrets").iterdir()}


def test_the_pod_is_restricted() -> None:
    """What Pod Security's level `restricted` asks for, and a root that is read-only."""
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == argument("USER")
    assert POD["automountServiceAccountToken"] is False
    assert (
        the("Namespace", "mqtt")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )


def test_probes_ask_what_there_is() -> None:
    needs_nothing = {route.path for route in ROUTES if route.method == "GET" and route.needs == "nothing"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["path"] in needs_nothing
        assert CONTAINER[probe]["httpGet"]["scheme"] == "HTTPS"
    # A database that is away must not take every pod out of service: logins go on without it.
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_pod_has_time_to_end_its_sessions() -> None:
    (_, seconds) = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["terminationGracePeriodSeconds"] >= int(seconds) + MqttConfig().drain * 2


async def test_the_metric_of_the_autoscaler_is_one() -> None:
    (metric,) = the("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    (shown,) = [block for block in blocks if "seriesQuery" in block]
    (rule,) = yaml.safe_load(shown)["rules"]
    assert rule["name"]["as"] == name
    series, label, value = re.match(r'(\w+)\{(\w+)="(\w+)"', rule["seriesQuery"]).groups()  # type: ignore[union-attr]
    async with serving() as (broker, api), log_in(broker.address(), connect("dev")):
        text = (await api.ask("GET", "/metrics", token=None)).text
    assert re.search(rf'^{series}\{{listener="tcp",{label}="{value}"\}} 1\.0$', text, re.M), text


def configuration() -> BrokerConfig:
    return load(str(MANIFESTS / "broker.yaml"), environ={"HOSTNAME": "broker-0"}).config


def test_the_broker_takes_the_configuration(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    secrets = tmp_path / "secrets"
    subprocess.run([COMPOSE / "make-secrets", secrets], check=True)
    for old, new in (("server.pem", "tls.crt"), ("server.key", "tls.key")):
        (secrets / old).rename(secrets / new)
    # There is no database here. tests/mqtt/deployment/test_topology.py has one.
    (secrets / "store").unlink()
    (secrets / "store").write_text(f"sqlite:{tmp_path}/broker.db")
    text = (MANIFESTS / "broker.yaml").read_text()
    for folder in ("/run/secrets/proxyproto-rs", "/run/secrets/tls"):
        text = text.replace(folder, str(secrets))
    (tmp_path / "broker.yaml").write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "proxyproto_rs.cli",
            "broker",
            "--config",
            tmp_path / "broker.yaml",
            "--check",
        ],
        env={"PATH": os.environ["PATH"], "HOSTNAME": "broker-0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
