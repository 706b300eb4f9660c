"""CrowdSec itself, as Debian packages it, in a directory of the test: its local API, its `cscli`, and its agent.

It speaks to nobody else: it has no credentials of the central API, and no hub but what Debian ships.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from interop.proxies import find_program
from peers import free_ports, is_refused, until

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTRIB = Path(__file__).parents[2] / "contrib" / "crowdsec"
SHIPPED = Path("/usr/share/crowdsec/hub")
PATTERNS = Path("/etc/crowdsec/patterns")

_TRIES = 5
_LONGEST = 30  # seconds of one command


class Crowdsec:
    """`start` and `stop` may be called again and again; the decisions stay."""

    def __init__(self, directory: Path) -> None:
        self._program, self._cscli = find_program("crowdsec"), find_program("cscli")
        if not SHIPPED.is_dir() or not PATTERNS.is_dir():
            pytest.skip("CrowdSec's package has no hub and no patterns where Debian puts them")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        for name in ("data", "hub", "notifications", "plugins", "etc/scenarios"):
            (directory / name).mkdir(parents=True)
        shutil.copy(SHIPPED / ".index.json", directory / "hub")
        shutil.copytree(PATTERNS, directory / "etc" / "patterns")
        for parser in (
            SHIPPED / "parsers" / "s00-raw" / "crowdsecurity" / "syslog-logs.yaml",
            SHIPPED / "parsers" / "s02-enrich" / "crowdsecurity" / "dateparse-enrich.yaml",
        ):
            stage = directory / "etc" / "parsers" / parser.parent.parent.name
            stage.mkdir(parents=True)
            shutil.copy(parser, stage)
        (directory / "etc" / "parsers" / "s01-parse").mkdir()
        shutil.copy(CONTRIB / "proxyproto-rs-logs.yaml", directory / "etc" / "parsers" / "s01-parse")
        shutil.copy(CONTRIB / "proxyproto-rs-bf.yaml", directory / "etc" / "scenarios")
        (directory / "simulation.yaml").write_text("simulation: off\n")
        (directory / "acquis.yaml").touch()
        (directory / "credentials.yaml").touch()
        (directory / "profiles.yaml").write_text(
            yaml.safe_dump(
                {
                    "name": "tests",
                    "filters": ["Alert.Remediation == true && Alert.GetScope() == 'Ip'"],
                    "decisions": [{"type": "ban", "duration": "4h"}],
                    "on_success": "break",
                }
            )
        )

    def start(self) -> None:
        """Serve the local API, at the same address as before."""
        for _ in range(_TRIES):
            if not self.url:
                self._configure()
            if self._serves():
                return
            self.url = ""  # somebody else may have taken the port meanwhile
        raise AssertionError(f"CrowdSec does not start: {(self._directory / 'api.log').read_text()}")

    def stop(self) -> None:
        """End the local API."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    async def cscli(self, *arguments: str) -> str:
        """Run a command as an operator does, and give what it prints."""
        return await asyncio.to_thread(self._run, self._cscli, "-c", self._config, *arguments)

    async def ban(self, *arguments: str) -> str:
        """Decide; return the decision's id."""
        await self.cscli("decisions", "add", *arguments)
        # The list of decisions shows one of each address, so they are looked up in the alerts.
        alerts = json.loads(await self.cscli("alerts", "list", "--limit", "0", "-o", "json"))
        return str(max(decision["id"] for alert in alerts for decision in alert["decisions"]))

    async def read_log(self, log: Path, kind: str) -> str:
        """Let the agent read a log, and tell the local API of what it finds. Return its own log."""
        return await asyncio.to_thread(
            self._run, self._program, "-c", self._config, "-no-api", "-dsn", f"file://{log}", "-type", kind
        )

    def explain(self, log: Path, kind: str) -> list[str]:
        """Return what `cscli explain` says of each line of a log, in no order. It asks the local API."""
        told = self._run(self._cscli, "-c", self._config, "explain", "-v", "--file", str(log), "--type", kind)
        return told.split("\nline: ")

    @property
    def _config(self) -> str:
        return str(self._directory / "config.yaml")

    def _serves(self) -> bool:
        """Start it, and wait until it serves; False if it has ended instead."""
        with (self._directory / "api.log").open("ab") as log:
            process = subprocess.Popen([self._program, "-c", self._config, "-no-cs"], stdout=log, stderr=log)
        self._process = process
        host, port = self.url.removeprefix("http://").split(":")
        until(lambda: process.poll() is not None or not is_refused((host, int(port))))
        return process.poll() is None

    def _run(self, *command: str) -> str:
        ran = subprocess.run(
            command,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout}"
        return ran.stdout

    def _configure(self) -> None:
        directory = self._directory
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        Path(self._config).write_text(
            yaml.safe_dump(
                {
                    "common": {"daemonize": False, "log_media": "stdout", "working_dir": str(directory)},
                    "config_paths": {
                        "config_dir": str(directory / "etc"),
                        "data_dir": str(directory / "data"),
                        "simulation_path": str(directory / "simulation.yaml"),
                        "hub_dir": str(directory / "hub"),
                        "index_path": str(directory / "hub" / ".index.json"),
                        "notification_dir": str(directory / "notifications"),
                        "plugin_dir": str(directory / "plugins"),
                    },
                    "crowdsec_service": {"acquisition_path": str(directory / "acquis.yaml")},
                    "db_config": {
                        "type": "sqlite",
                        "db_path": str(directory / "data" / "crowdsec.db"),
                        "use_wal": True,
                    },
                    "cscli": {"output": "raw"},
                    "api": {
                        "client": {"credentials_path": str(directory / "credentials.yaml")},
                        "server": {
                            "listen_uri": f"127.0.0.1:{port}",
                            "profiles_path": str(directory / "profiles.yaml"),
                        },
                    },
                    "prometheus": {"enabled": False},
                }
            )
        )
        credentials = ("--file", str(directory / "credentials.yaml"))
        self._run(
            *(self._cscli, "-c", self._config, "machines", "add", "tests"),
            *("--password", "for-tests", "--force", *credentials),
        )


@contextlib.contextmanager
def installed(directory: Path) -> Iterator[Crowdsec]:
    """CrowdSec in a new directory below `directory`. Without CrowdSec the test is skipped."""
    crowdsec = Crowdsec(directory / "crowdsec")
    try:
        yield crowdsec
    finally:
        crowdsec.stop()
