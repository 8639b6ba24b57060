"""A program that uses an executor once and ends: ``python -m ..._use_executor module:name``."""

from __future__ import annotations

import pkgutil
import sys

import trio

from namedtasks.testing._jobs import echo


async def use(importable: str) -> None:
    """Run something on the executor that is found at *importable*."""
    given = await pkgutil.resolve_name(importable)(echo, 1, 2)
    if given != (1, 2):
        raise ValueError(f"echo(1, 2) gave {given!r}")


if __name__ == "__main__":
    trio.run(use, sys.argv[1])
