"""The certificate for `proxyproto-rs listen --tls`: the one that is given, or one that openssl makes for this run."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path


class NoCertificate(Exception):
    """There is none, and none could be made. The text says what to do."""


def server_context(cert: str | None, key: str | None) -> ssl.SSLContext:
    """Return a context for servers.

    Raises:
        NoCertificate: See there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if cert is not None:
            context.load_cert_chain(cert, key)
        else:
            with tempfile.TemporaryDirectory() as directory:
                context.load_cert_chain(_make(Path(directory)))
    except (OSError, ValueError) as wrong:
        raise NoCertificate(f"the certificate {cert or ''} cannot be used: {wrong}") from None
    return context


def _make(directory: Path) -> Path:
    program = shutil.which("openssl")
    if program is None:
        raise NoCertificate(
            "--tls needs the program openssl to make a certificate, or one of yours: --cert FILE"
        )
    pem, key = directory / "server.pem", directory / "key.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(pem), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if made.returncode:
        raise NoCertificate(f"openssl made no certificate: {made.stderr.strip()[-200:]}")
    pem.write_text(pem.read_text() + key.read_text())
    return pem
