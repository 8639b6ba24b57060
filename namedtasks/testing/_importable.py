"""Where a new interpreter finds an executor: ``package.module:attribute``."""

from __future__ import annotations

import pkgutil

from namedtasks._core.text import error_text, repr_of


def checked(importable: str) -> str:
    """What was given, if an executor is found there.

    Raises:
        ValueError: there is none.
    """
    if ":" not in importable:
        raise ValueError(
            f"importable must be 'package.module:attribute', not {repr_of(importable)}"
        )
    try:
        pkgutil.resolve_name(importable)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no executor at {importable}: {error_text(error)}") from error
    return importable


def importable_of(executor: object) -> str:
    """The *executor*'s own place.

    Raises:
        ValueError: it has none.
    """
    module: object = getattr(executor, "__module__", None)
    name: object = getattr(executor, "__qualname__", None)
    importable = f"{module}:{name}"
    try:
        found = module != "__main__" and pkgutil.resolve_name(importable) is executor
    except (ImportError, AttributeError, ValueError):
        found = False
    if not found:
        raise ValueError(
            "a new interpreter must find the executor, to see whether it exits, and "
            f"{importable} is not it: pass importable='package.module:attribute', which may be an "
            "async function that calls your executor"
        )
    return importable
