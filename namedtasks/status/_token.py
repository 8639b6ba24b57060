"""The bearer token, which gives access to the API.

A browser's EventSource sends no headers. So the page sends the token once in a header, and gets a
cookie.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="namedtasks"'}


@final
class Token:
    """A token that every request needs, in a header or in the cookie.

    The cookie holds a value that is derived from the token, and not the token. Its name is derived
    from it, too: browsers send the cookies of a host to all its ports, so two pages on one host
    must not use the same name.
    """

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise TypeError(f"token must be a text or None, not {type(token).__name__}")
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise ValueError("token must be printable ASCII without spaces")
        self._token = token.encode()
        self._cookie_name = f"namedtasks-status-{self._derived('name')[:8]}"
        self._cookie = self._derived("cookie")

    def _derived(self, purpose: str) -> str:
        return hmac.new(
            self._token, f"namedtasks.status {purpose}".encode(), hashlib.sha256
        ).hexdigest()

    def admits(self, request: Request) -> bool:
        """Return whether *request* has the token, or the cookie.

        The comparison takes the same time for every wrong value.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode("latin-1"), self._token)
        cookie = request.cookies.get(self._cookie_name, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode())

    def cookie(self, request: Request) -> str:
        """Return the header that sets the cookie, which the browser keeps until it is closed.

        The header has no path, so the cookie is for the folder of this request as the browser
        sees it. That is right behind a proxy that removes a part of the path, too.
        """
        secure = "; Secure" if request.url.scheme == "https" else ""
        return f"{self._cookie_name}={self._cookie}; HttpOnly; SameSite=Strict{secure}"


def refusal(token: Token | None, request: Request) -> Response | None:
    """Return the answer to a *request* without the *token*; None if it has it."""
    if token is None or token.admits(request):
        return None
    detail = "this page has a token: send it as 'Authorization: Bearer …'"
    return JSONResponse({"detail": detail}, 401, CHALLENGE)


def token_or_none(token: str | None) -> Token | None:
    """Return the checked *token*.

    Raises:
        TypeError: it is no text.
        ValueError: it cannot be sent in a header.
    """
    return None if token is None else Token(token)
