"""The version, which the build reads here, and the names and fields that `help()` shows."""

from __future__ import annotations

import sys
from typing import Any, get_type_hints

__version__ = "0.1.0.dev0"


def publish(*values: Any, module: str = "namedtasks") -> None:
    """Make tracebacks, docs and pickles show ``namedtasks.BackoffError``.

    Without this they would show the private module of the class.
    """
    for value in values:
        if hasattr(value, "__attrs_attrs__"):
            show_fields(value)
            value.__annotations__ = get_type_hints(value)  # later they would be sought in *module*
        value.__module__ = module


def show_fields(*records: Any) -> None:
    """Make `help()` show the string below each field of these classes of attrs.

    Python shows the values of a ``__slots__`` that is a dict.
    """
    for record in records:
        record.__slots__ = _FieldDocs(record)


class _FieldDocs(dict[str, str | None]):
    """The slots of a class, with the string below each of them in the source.

    The source is read at the first look, because only `help()` and the like look.
    """

    def __init__(self, record: Any) -> None:
        super().__init__(dict.fromkeys(record.__slots__))
        self._name: str = record.__name__
        self._module: str | None = record.__module__
        """The module with the source; None once that was read."""

    def __getitem__(self, field: str) -> str | None:
        if self._module is not None:
            module, self._module = self._module, None
            texts = _strings_below_fields(module, self._name)
            self.update({slot: texts[slot] for slot in self.keys() & texts.keys()})
        return super().__getitem__(field)


def _strings_below_fields(module: str, class_name: str) -> dict[str, str]:
    """Return the string below each field of a class; nothing if there is no source."""
    import ast  # noqa: PLC0415 # for documentation tools only
    import inspect  # noqa: PLC0415
    import itertools  # noqa: PLC0415

    try:
        source = inspect.getsource(sys.modules[module])
        (body,) = [
            node.body
            for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef) and node.name == class_name
        ]
    except (OSError, TypeError, ValueError, SyntaxError):  # frozen, or changed since the import
        return {}
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
