"""TLS by Python's ssl: a listener's context, and why a handshake failed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config import TlsConfig

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_WRONG_VERSION = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNSUPPORTED_PROTOCOL",
    "UNKNOWN_PROTOCOL",
    "VERSION_TOO_LOW",
)


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Build the context of a listener.

    Raises:
        ValueError: A file is missing or unreadable or holds no certificate, the key belongs to another
            certificate, or OpenSSL knows none of the ciphers. The text begins with the option's name.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = _VERSIONS[config.min_version]
    if config.alpn:
        context.set_alpn_protocols(list(config.alpn))
    if config.strict_x509 is not None:
        strict = context.verify_flags | ssl.VERIFY_X509_STRICT
        context.verify_flags = strict if config.strict_x509 else strict & ~ssl.VERIFY_X509_STRICT
    load_certificate(context, config)
    if config.cafile is not None:
        try:
            context.load_verify_locations(cafile=config.cafile)
        except (OSError, ValueError) as wrong:
            raise ValueError(f"cafile: {config.cafile}: {_text(wrong)}") from None
    elif config.client_certificate != "none":
        raise ValueError(f"cafile: is needed for client_certificate: {config.client_certificate}")
    context.verify_mode = _VERIFY[config.client_certificate]
    if config.ciphers is not None:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError:
            raise ValueError(f"ciphers: OpenSSL knows none of {config.ciphers!r}") from None
    context.sni_callback = _remember_sni
    return context


def why_failed(wrong: BaseException) -> str:
    """Say why a handshake failed: one of four words, then OpenSSL's reason where it says more."""
    if isinstance(wrong, ssl.SSLCertVerificationError):
        return f"bad-certificate: {wrong.verify_message}"
    if isinstance(wrong, ssl.SSLError) and wrong.reason:
        if wrong.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "no-certificate"
        if "CERTIFICATE" in wrong.reason and "ALERT" not in wrong.reason:
            return f"bad-certificate: {wrong.reason}"
        if wrong.reason in _WRONG_VERSION:
            return f"wrong-version: {wrong.reason}"
        return f"closed: {wrong.reason}"
    return "closed"


def load_certificate(context: ssl.SSLContext, config: TlsConfig) -> None:
    """Load the certificate and its key, for handshakes from now on. Raises ValueError, as `server_context` does."""
    if config.certfile is None:
        raise ValueError("certfile: is needed")
    password = _password(config)
    for key, name in (("certfile", config.certfile), ("keyfile", config.keyfile)):
        if name is not None and not Path(name).is_file():
            raise ValueError(f"{key}: {name}: no such file")
    try:
        # Without a password function OpenSSL would ask on the terminal.
        context.load_cert_chain(config.certfile, config.keyfile, password=lambda: password or "")
    except (OSError, ValueError) as wrong:
        files = config.certfile if config.keyfile is None else f"{config.certfile} and {config.keyfile}"
        raise ValueError(f"certfile: {files}: {_text(wrong)}") from None


def _password(config: TlsConfig) -> str | None:
    if config.key_password is not None:
        return config.key_password.get_secret_value()
    if config.key_password_file is None:
        return None
    try:
        return Path(config.key_password_file).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as wrong:
        raise ValueError(f"key_password_file: {config.key_password_file}: {_text(wrong)}") from None


def _text(wrong: Exception) -> str:
    if isinstance(wrong, ssl.SSLError):
        known = {
            "KEY_VALUES_MISMATCH": "the key is not the certificate's",
            "BAD_DECRYPT": "wrong key password",
            "BAD_PASSWORD_READ": "the key needs a password (key_password_file)",
            "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in it",
        }
        return known.get(
            wrong.reason or "", f"not a certificate and key in PEM form ({wrong.reason or wrong})"
        )
    return getattr(wrong, "strerror", None) or str(wrong)


def _remember_sni(ssl_object: Any, name: str | None, context: ssl.SSLContext) -> None:
    del context
    ssl_object._proxyproto_rs_sni = name
