"""The host names to which a page without a token answers on a loopback address.

A malicious site can make its own name resolve to 127.0.0.1 (DNS rebinding). The browser then takes
the page for a part of that site, and lets its scripts read it. The header Host has the name of the
site, so such requests can be refused.
"""

from __future__ import annotations

import ipaddress
from typing import Final, final

from starlette.types import Scope

HOSTS: Final = "namedtasks.status.hosts"
"""A key of an ASGI scope. Its value is a `Hosts`."""

WRONG_HOST: Final = (
    "this page has no token, so it answers only to the names of this machine; "
    "behind a proxy or under another name, give it a token"
)


@final
class Hosts:
    """The host names that are accepted: all of them unless the server listens on loopback."""

    def __init__(self, host: str) -> None:
        self._is_local = _is_loopback(host)

    def admits(self, scope: Scope) -> bool:
        """Return whether the request of *scope* is for an accepted name."""
        if not self._is_local:
            return True
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = [value.decode("latin-1") for name, value in headers if name == b"host"]
        return all(_is_loopback(_without_port(host)) for host in given)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).strip("[]")


def _is_loopback(host: str) -> bool:
    host = host.lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


ANY_HOST: Final = Hosts("")
