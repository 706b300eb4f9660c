"""The sockets that systemd passes to a service (sd_listen_fds(3))."""

from __future__ import annotations

import os

_FIRST = 3  # SD_LISTEN_FDS_START


def find_fd(name: str | None) -> int:
    """Return the fd with this name; without a name, the only fd.

    Raises:
        RuntimeError: systemd has passed nothing to this process.
        ValueError: No fd has this name, or several have it. Or there is no name, and there are several fds.
    """
    names = _names()
    if name is None:
        if len(names) > 1:
            raise ValueError(
                f"systemd passed {len(names)} sockets, so a name is needed; theirs are {', '.join(names)}"
            )
        return _FIRST
    count = names.count(name)
    if count != 1:
        problem = "no socket has" if not count else f"{count} sockets have"
        raise ValueError(
            f"{problem} the name {name!r}; systemd passed {', '.join(names)} "
            "(FileDescriptorName= in the socket unit)"
        )
    return _FIRST + names.index(name)


def _names() -> list[str]:
    environment = os.environ
    if environment.get("LISTEN_PID") != str(os.getpid()):
        raise RuntimeError(
            "systemd has passed no socket: this process was not started by a socket unit (LISTEN_PID)"
        )
    text = environment.get("LISTEN_FDS", "")
    # int() also accepts signs, blanks and underscores.
    count = int(text) if text.isascii() and text.isdigit() else 0
    if not count:
        raise RuntimeError(f"systemd has passed no socket: LISTEN_FDS is {text!r}")
    # A socket without a name is called "unknown" (sd_listen_fds_with_names(3)). Older versions of systemd pass no names.
    names = environment.get("LISTEN_FDNAMES", "unknown").split(":")
    return names if len(names) == count else ["unknown"] * count
