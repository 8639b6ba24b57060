"""The version, which the build reads here, and the name under which public objects are known."""

from typing import Any, get_type_hints

__version__ = "0.1.0.dev0"


def publish(*values: Any, module: str = "namedtasks") -> None:
    """Make tracebacks, docs and pickles say ``namedtasks.BackoffError``.

    Without it they would say in which module the class is written.
    """
    for value in values:
        if hasattr(value, "__attrs_attrs__"):  # else its hints would be looked up in *module*
            value.__annotations__ = get_type_hints(value)
        value.__module__ = module
