"""Makes a test of a behaviour, for every dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.conformance.driver import Driver

Behaviour = Callable[[Driver], Awaitable[None]]
Conform = Callable[[Behaviour], None]


def behaviour(function: Behaviour) -> Callable[[Conform], None]:
    """Turn *function* into a test that runs it in each dialect."""

    def test(conform: Conform) -> None:
        conform(function)

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(test, attribute, getattr(function, attribute))
    return test
