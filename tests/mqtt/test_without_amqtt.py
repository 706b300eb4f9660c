"""The broker where amqtt is not installed, as `pip install 'proxyproto_rs[mqtt]'` leaves it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

if TYPE_CHECKING:
    from pathlib import Path

UNINSTALLED = "import sys; sys.modules['amqtt'] = None\n"

# A broker that embeds, and in front of it one whose upstream it is. A client talks to the second.
BOTH = """
import asyncio
from proxyproto_rs.mqtt import BrokerConfig, BrokerService
from proxyproto_rs.mqtt.demo.talker import Talker

def config(**sections):
    tcp = {"bind": "127.0.0.1:0", "proxy_protocol": "off"}
    return BrokerConfig.model_validate({"listeners": {"tcp": tcp}, "store": "sqlite::memory:", **sections})

def port(service):
    return service.listening["tcp"].listener.getsockname()[1]

async def main():
    async with BrokerService(config(auth=[{"file": sys.argv[1]}])) as embedded:
        servers = {"servers": [f"127.0.0.1:{port(embedded)}"], "proxy_protocol": "off"}
        async with BrokerService(config(backend={"upstream": servers})) as front:
            five = await Talker.connect(port(front), "five", "user", "right", "5")
            three = await Talker.connect(port(embedded), "three", "user", "right", "3.1.1")
            await five.subscribe("a")
            await three.publish("a", b"arrived")
            print(await five.receive())
            await five.close()
            await three.close()

asyncio.run(main())
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", UNINSTALLED + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_embedded_and_upstream_serve(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text(f"user:{PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash('right')}\n")
    done = run(BOTH, str(users))
    assert (done.returncode, done.stdout) == (0, "b'arrived'\n"), done.stderr


def test_the_demo_is_right() -> None:
    done = run("from proxyproto_rs.cli import main; sys.exit(main(['demo']))")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", ["", "'--check'", "'--print-config'"])
def test_a_file_that_means_amqtt_names_the_extra(tmp_path: Path, options: str) -> None:
    file = tmp_path / "broker.yaml"
    plugins = "{amqtt.plugins.authentication.AnonymousAuthPlugin: {}}"
    file.write_text(f"listeners: {{tcp: {{bind: '127.0.0.1:0'}}}}\namqtt: {{plugins: {plugins}}}\n")
    program = (
        f"from proxyproto_rs.cli import main; sys.exit(main(['broker', '--config', sys.argv[1], {options}]))"
    )
    done = run(program, str(file))
    if "print" in options:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 2
    assert done.stderr == (
        f"proxyproto-rs broker: {file}:2: amqtt: needs the package amqtt: pip install"
        ' "proxyproto_rs[amqtt]"; or leave amqtt out for the embedded broker\n'
    )


def test_amqtts_plugin_names_the_extra() -> None:
    done = run("from proxyproto_rs.mqtt import PasswordFile")
    assert done.stderr.splitlines()[-1] == (
        'ImportError: PasswordFile needs amqtt: pip install "proxyproto_rs[amqtt]"'
    )
