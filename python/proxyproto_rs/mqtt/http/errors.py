"""The error of a request, and the JSON that tells of it. The numbers of `errorCode` are ThingsBoard's."""

from __future__ import annotations

GENERAL, AUTHENTICATION, PERMISSION, INVALID, BAD_REQUEST, NOT_FOUND, TOO_MANY = 2, 10, 20, 30, 31, 32, 33

_CODES = {
    401: AUTHENTICATION,
    403: PERMISSION,
    404: NOT_FOUND,
    405: BAD_REQUEST,
    409: INVALID,
    413: BAD_REQUEST,
    415: BAD_REQUEST,
    421: PERMISSION,
    429: TOO_MANY,
    400: BAD_REQUEST,
}


class ApiError(Exception):
    """A request that is not answered with what it asks for. `message` is for the person who sent it."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(status, message)
        self.status: int = status
        self.message: str = message
        self.headers: dict[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}


def error_body(status: int, message: str) -> dict[str, object]:
    """Return the body of an error, as TBMQ writes it."""
    return {"status": status, "message": message, "errorCode": _CODES.get(status, GENERAL)}
