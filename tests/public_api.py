"""The public API as one readable text, so that a diff shows what a change does to users.

`python -m tests.public_api` (or `make api`) writes it to `public_api.txt`. It has
each public name with all that a caller can rely on: parameters with their kinds,
defaults and types, overloads, properties, fields, members of enums, bases.
"""

from __future__ import annotations

import ast
import enum
import inspect
import pathlib
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import attrs

import namedtasks
import namedtasks.abc
import namedtasks.asyncio
import namedtasks.executors
import namedtasks.instruments
import namedtasks.status
import namedtasks.testing
from namedtasks._executors import PoolOrFactory
from namedtasks._trio.backend import Executor

MODULES = [
    namedtasks,
    namedtasks.abc,
    namedtasks.asyncio,
    namedtasks.executors,
    namedtasks.instruments,
    namedtasks.status,
    namedtasks.testing,
]
PAGE = pathlib.Path(__file__).with_name("public_api.txt")
WIDTH = 92
"""Of a line: a signature that is longer has a line for each parameter."""

MADE_BY_US = {"CurrentRun", "Observation", "StatusServer", "TaskFuture", "TaskHandle", "TaskMap"}
"""Users get objects of these, and never make one: their ``__init__`` is no promise."""

OPERATORS = {
    *("__aenter__", "__aexit__", "__enter__", "__exit__", "__await__", "__call__"),
    *("__bool__", "__contains__", "__getitem__", "__iter__", "__len__"),
}
"""What a caller uses without its name."""

ALIASES = {"Executor": Executor, "PoolOrFactory": PoolOrFactory}
"""Where a signature shows the name only, a change of the type would not be seen."""


def public(module: ModuleType) -> dict[str, Any]:
    """The public names of *module*, in the order in which it has them.

    Those that it imports when they are first used come last.
    """
    names = getattr(module, "__all__", dict.fromkeys([*vars(module), *dir(module)]))
    return {
        name: value
        for name in names
        for value in [getattr(module, name)]
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (getattr(value, "__module__", "").startswith("namedtasks") or is_alias(value))
    }


def is_alias(value: object) -> bool:
    """Whether it is the name of some literals, which knows no place of its own."""
    return typing.get_origin(value) is typing.Literal


def page() -> str:
    """All of it."""
    lines = [line for module in MODULES for line in _module_lines(module)]
    lines += ["# Types that these signatures call by a name that is not public", ""]
    lines += [f"{name} = {_plain(kind)}" for name, kind in ALIASES.items()]
    return "\n".join(lines) + "\n"


def _homes() -> dict[int, str]:
    """Where each public object is told of: in the first module that has it."""
    found: dict[int, str] = {}
    for module in MODULES:
        for name, value in public(module).items():
            found.setdefault(id(value), f"{module.__name__}.{name}")
    return found


def _module_lines(module: ModuleType) -> Iterator[str]:
    yield f"# {module.__name__}"
    yield ""
    for name, value in sorted(public(module).items()):
        home = _homes()[id(value)]
        if home != f"{module.__name__}.{name}":
            yield f"{name} is {home}"
        elif inspect.isclass(value):
            yield from _class_lines(name, value)
        elif isinstance(value, FunctionType):
            yield from _function_lines(name, value)
        elif is_alias(value):
            yield f"{name} = {_plain(value)}"
        else:
            yield f"{name} = {value!r}"
        yield ""


def _class_lines(name: str, cls: type[object]) -> Iterator[str]:
    if getattr(cls, "__final__", False):
        yield "@final"
    if _is_frozen(cls):
        yield "@frozen"
    bases = ", ".join(_bases(cls))
    lines = [f"class {name}({bases}):" if bases else f"class {name}:"]
    inside = _enum_lines(cls) if issubclass(cls, enum.Enum) else _member_lines(name, cls)
    lines += [f"    {line}" for line in list(inside) or ["..."]]
    for variable, kind in _variables(cls).items():
        lines = [re.sub(rf"\b{variable}\b", kind, line) for line in lines]
    yield from lines


def _bases(cls: type[object]) -> Iterator[str]:
    """By their public names; one that is private is no promise, what it brings is."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin: type = typing.get_origin(base) or base
        home = _homes().get(id(origin))
        if home is not None:
            yield home
        elif origin.__module__.startswith("namedtasks"):
            yield from _bases(origin)
        elif origin is not object:
            yield _plain(base)


def _variables(cls: type[object]) -> dict[str, str]:
    """What *cls* puts in the place of the type variables of a private base."""
    found: dict[str, str] = {}
    for base in vars(cls).get("__orig_bases__", ()):
        origin = typing.get_origin(base)
        if origin.__module__.startswith("namedtasks"):
            (generic,) = origin.__orig_bases__
            kinds = zip(generic.__parameters__, typing.get_args(base), strict=True)
            found |= {variable.__name__: _plain(kind) for variable, kind in kinds}
    return found


def _plain(kind: object) -> str:
    """A type as one writes it, on each Python."""
    text = inspect.formatannotation(kind) if inspect.isclass(kind) else repr(kind)
    text = text.replace("concurrent.futures._base", "concurrent.futures")
    return re.sub(r"\b(typing|collections\.abc)\.|~", "", text)


def _is_frozen(cls: type[object]) -> bool:
    return attrs.has(cls) and cls.__setattr__ is not object.__setattr__


def _enum_lines(cls: type[enum.Enum]) -> Iterator[str]:
    yield from (f"{member.name} = {member.value!r}" for member in cls)


def _member_lines(class_name: str, cls: type[object]) -> Iterator[str]:
    yield from (f"{name}: {kind}" for name, kind in sorted(_fields(cls).items()))
    for name, member in sorted(_members(cls).items()):
        if name == "__init__" and class_name in MADE_BY_US:
            continue
        if isinstance(member, property):
            kind = _annotation(inspect.signature(typing.cast(Any, member.fget)).return_annotation)
            yield f"{name}: {kind}  # property" + ("" if member.fset is None else ", can be set")
        elif isinstance(member, classmethod | staticmethod):
            yield "@classmethod" if isinstance(member, classmethod) else "@staticmethod"
            yield from _function_lines(name, typing.cast(Any, member).__func__)
        elif isinstance(member, FunctionType):
            yield from _function_lines(name, member)
        elif name == "__contains__":  # a slot, which holds the method of a dict
            yield f"def {name}(self, name: object) -> bool"
        elif name not in _fields(cls):
            yield f"{name} = {member!r}"


def _members(cls: type[object]) -> dict[str, Any]:
    """What *cls* has from our own classes: public names, operators, and how it is made."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("namedtasks"):
            found |= {
                name: member
                for name, member in vars(base).items()
                if not name.startswith("_") or name in OPERATORS or name == "__init__"
            }
    if getattr(cls, "_is_protocol", False):
        del found["__init__"]
    return {
        name: member
        for name, member in found.items()
        if not inspect.isclass(member)
        and (name == "__contains__" or not inspect.ismemberdescriptor(member))
    }


def _fields(cls: type[object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("namedtasks"):
            found |= {
                name: _annotation(kind)
                for name, kind in inspect.get_annotations(base).items()
                if not name.startswith("_")
            }
            found |= _fields_of_init(base)
    return found


def _fields_of_init(cls: type[object]) -> dict[str, str]:
    """What ``__init__`` binds to public names of the object, with its type."""
    init = vars(cls).get("__init__")
    if not isinstance(init, FunctionType) or attrs.has(cls):
        return {}
    return {
        node.target.attr: ast.unparse(node.annotation)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init))))
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Attribute)
        and not node.target.attr.startswith("_")
    }


def _function_lines(name: str, function: Callable[..., Any]) -> Iterator[str]:
    inner = inspect.unwrap(function)
    for overload in typing.get_overloads(inner):
        yield from _signature_lines("@overload ", name, overload)
    if not typing.get_overloads(inner):
        yield from _signature_lines("", name, inner)


def _signature_lines(mark: str, name: str, function: Callable[..., Any]) -> Iterator[str]:
    signature = inspect.signature(function)
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    returns = _annotation(signature.return_annotation)
    parameters = list(_parameter_lines(signature))
    line = f"{mark}{word} {name}({', '.join(parameters)}) -> {returns}"
    if len(line) <= WIDTH:
        yield line
    else:
        yield f"{mark}{word} {name}("
        yield from (f"    {one}," for one in parameters)
        yield f") -> {returns}"


def _parameter_lines(signature: inspect.Signature) -> Iterator[str]:
    parameters = list(signature.parameters.values())
    by_place = [one for one in parameters if one.kind is one.POSITIONAL_ONLY]
    has_star = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            has_star = True
            yield "*"
        stars = _stars(parameter)
        has_star = has_star or stars == "*"
        text = stars + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        yield text
        if by_place and parameter is by_place[-1]:
            yield "/"


def _stars(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is parameter.VAR_KEYWORD else ""


def _annotation(kind: Any) -> str:
    return kind if isinstance(kind, str) else _plain(kind)


def _default(value: object) -> str:
    """A default as a caller would write it; no two runs may differ in it."""
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__ or type(value.__self__).__module__}.{value.__name__}"
    if isinstance(value, tuple):
        items = [_default(item) for item in typing.cast(tuple[object, ...], value)]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    return repr(value)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
