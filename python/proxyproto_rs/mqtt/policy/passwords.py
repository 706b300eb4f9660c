"""`PasswordFile`: an auth plugin that reads amqtt's password file and does not stop the event loop.

amqtt's FileAuthPlugin checks passwords in the event loop, and nobody is served meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amqtt.contexts import BaseContext
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from ..config.errors import Path as ConfigPath
from .password_checker import PasswordChecker, reread_password_files
from .password_table import PasswordFileError

__all__ = ["PATIENCE", "PasswordFile", "PasswordFileError", "reread_password_files"]

PATIENCE = "proxyproto_rs.patience"
"""The attribute of an amqtt session that says how long its password may wait to be checked, in seconds."""


class PasswordFile(PasswordChecker, BaseAuthPlugin):
    """Lets in clients that give the password which the file has for their user name.

    As a plugin: `proxyproto_rs.mqtt.PasswordFile: {password_file: users.txt}`. In Python:
    `PasswordFile(password_file="users.txt")`. It leaves a client without a user name to other plugins.

    Raises PasswordFileError if the file cannot be read or used.
    """

    named: ConfigPath = ("amqtt", "plugins", "proxyproto_rs.mqtt.PasswordFile")

    @dataclass
    class Config:
        """The plugin's options."""

        password_file: str | Path
        """The file, with lines `name:hash`."""
        remember: float = 300.0
        """How long a good login is not checked again, in seconds. 0 checks every time."""

    def __init__(
        self,
        context: BaseContext | None = None,
        *,
        password_file: str | os.PathLike[str] | None = None,
        remember: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if context is None:
            if password_file is None:
                raise TypeError("password_file is missing")
            context = BaseContext()
            context.config = self.Config(Path(password_file), remember)  # type: ignore[assignment]
        BaseAuthPlugin.__init__(self, context)
        options = self.config
        assert isinstance(options, PasswordFile.Config)
        PasswordChecker.__init__(self, options.password_file, options.remember, clock)

    async def authenticate(self, *, session: Session) -> bool | None:
        """Check the session's password. Returns None without a user name. amqtt calls this.

        It reads only `username` and `password` of the session. Raises Refuse as `check` does.
        """
        if not session.username:
            return None
        return await self.check(
            session.username,
            session.password or "",
            address=getattr(session, "remote_address", None) or "",
            patience=getattr(session, "attributes", {}).get(PATIENCE),
        )
