"""Runs the examples of a docstring as one would type them in a shell with a top-level ``await``.

That is ``python -m trio``, and ``python -m asyncio`` for what is in
`namedtasks.asyncio`; time is virtual in both. Before them one types ``from …
import *``, with the module in which the reference has the name.

What the three maps have in common is tried in each of them. There ``tasks`` is
the map, already open: ``"pvc-1"`` runs, and ``"pvc-2"`` waits after a failure.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import threading
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeGuard
from unittest import mock

import attrs
import trio
from trio.testing import MockClock

import namedtasks
import namedtasks._decisions
import namedtasks._names
import namedtasks.asyncio
import namedtasks.testing
from namedtasks._task_map import BaseTaskMap
from tests import virtual_loop
from tests.public_api import MODULES, public

BELOW = {"ANY": namedtasks._names, "IfBusy": namedtasks._decisions}
"""What is bound to a value says what it is for in the string below it: in which module."""

Names = dict[str, Any]
Shell = Callable[[str, Names], None]


@attrs.frozen
class Docstring:
    """What a public name, or a method of a public class, says of itself."""

    name: str
    """With its module and class: ``namedtasks.TaskMap.cancel``."""
    module: str
    text: str
    is_method: bool = False
    map_of: type | None = None
    """For a verb that the three maps have in common: which of them it is told of."""


# What there is


def docstrings() -> Iterator[Docstring]:
    """The docstrings of all public names, each under its first name, and of their methods."""
    seen: set[int] = set()
    for module in MODULES:
        for name, value in public(module).items():
            if id(value) in seen:
                continue
            seen.add(id(value))
            text = text_below(BELOW[name], name) if name in BELOW else value.__doc__ or ""
            yield Docstring(f"{module.__name__}.{name}", module.__name__, inspect.cleandoc(text))
            for member, method in methods(value).items():
                yield Docstring(
                    f"{module.__name__}.{name}.{member}",
                    module.__name__,
                    inspect.getdoc(method) or "",
                    is_method=True,
                    map_of=value if vars(BaseTaskMap).get(member) is method else None,
                )


def methods(kind: object) -> dict[str, FunctionType]:
    """The public methods that *kind*, if it is a class, has from classes of ours."""
    found: dict[str, FunctionType] = {}
    for base in reversed(kind.__mro__ if inspect.isclass(kind) else ()):
        if base.__module__.startswith("namedtasks"):
            found |= {
                name: member
                for name, member in vars(base).items()
                if not name.startswith("_") and isinstance(member, FunctionType)
            }
    return found


def fields(kind: object) -> list[str]:
    """The public fields and properties that *kind*, if it is a class, has from classes of ours."""
    found = [field.name for field in attrs.fields(kind)] if _is_record(kind) else []
    for base in kind.__mro__ if inspect.isclass(kind) else ():
        if base.__module__.startswith("namedtasks"):
            found += [name for name, member in vars(base).items() if isinstance(member, property)]
    return sorted({name for name in found if not name.startswith("_")})


def _is_record(kind: object) -> TypeGuard[type[attrs.AttrsInstance]]:
    return inspect.isclass(kind) and attrs.has(kind)


def text_below(module: ModuleType, name: str) -> str:
    """The string below the line of *module* that binds *name*."""
    body = ast.parse(inspect.getsource(module)).body
    (place,) = [
        place
        for place, node in enumerate(body)
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in ast.unparse(node).split(" ")[0]
    ]
    below = body[place + 1]
    assert isinstance(below, ast.Expr)
    assert isinstance(below.value, ast.Constant)
    return str(below.value.value)


def examples_in(text: str) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(text)


# Typing it


def run_docstring(docstring: Docstring) -> None:
    """Run all examples of *docstring*, one after the other.

    Raises:
        AssertionError: something else was shown than it says, or it has no example.
        Exception: an example raised that, and the docstring does not say so.
    """
    names = names_of(docstring.module)
    if docstring.map_of is not None:
        IN_MAPS[docstring.map_of](docstring.text, names)
    elif docstring.module == "namedtasks.asyncio":
        in_asyncio(docstring.text, names)
    else:
        in_trio(docstring.text, names)


def names_of(module: str) -> Names:
    """What is at hand after ``from module import *``."""
    names: Names = {"__name__": "__main__"}
    exec(f"from {module} import *", names)
    return names


async def type_in(text: str, names: Names) -> None:
    """Type the examples in *text*, where *names* are known."""
    examples = examples_in(text)
    assert examples, "there is no example to run"
    for example in examples:
        printed, raised = await _answer(example, names)
        shown = ("", example.exc_msg) if example.exc_msg else (example.want, None)
        assert shown == (printed, raised), f"{example.source} shows {printed or raised!r}"


async def _answer(example: doctest.Example, names: Names) -> tuple[str, str | None]:
    """What *example* prints, and the exception that it raises, if it says that it raises one."""
    out = io.StringIO()
    raised = None
    with contextlib.redirect_stdout(out), mock.patch("sys.displayhook", _display):
        try:
            function = FunctionType(compiled(example), names)
            if inspect.iscoroutinefunction(function):
                await function()
            else:
                function()
        except Exception as error:
            if example.exc_msg is None:
                raise
            raised = traceback.format_exception_only(error)[-1]
    return out.getvalue(), raised


def compiled(example: doctest.Example) -> CodeType:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(example.source, "<example>", "single", flags, dont_inherit=True)
    return code


def _display(value: object) -> None:
    if value is not None:
        print(repr(value))


# The shells


def in_trio(text: str, names: Names) -> None:
    names["trio"] = trio
    if not any(compiled(example).co_flags & inspect.CO_COROUTINE for example in examples_in(text)):
        in_python(text, names)  # so that it may call trio.run()
    else:
        trio.run(type_in, text, names, clock=MockClock(autojump_threshold=0))


def in_asyncio(text: str, names: Names) -> None:
    names["asyncio"] = asyncio
    virtual_loop.run(lambda: type_in(text, names), collect=False)


def in_python(text: str, names: Names) -> None:
    """Python's own shell: nothing is awaited."""
    typing = type_in(text, names)
    try:
        typing.send(None)
    except StopIteration:
        return
    raise AssertionError("an example awaits something")


def in_map_for_trio(text: str, names: Names) -> None:
    async def main() -> None:
        async with namedtasks.open_task_map(instruments=()) as names["tasks"]:
            tasks: namedtasks.TaskMap = names["tasks"]
            tasks.start_soon("pvc-2", _fail_soon)
            await tasks.wait_idle()
            tasks.start_soon("pvc-1", trio.sleep_forever)
            await type_in(text, names)
            tasks.cancel_all()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def in_map_for_asyncio(text: str, names: Names) -> None:
    async def main() -> None:
        async with namedtasks.asyncio.open_task_map(instruments=()) as names["tasks"]:
            tasks: namedtasks.asyncio.TaskMap = names["tasks"]
            _ = tasks.create_task("pvc-2", _fail_soon)
            await tasks.wait_idle()
            _ = tasks.create_task("pvc-1", asyncio.sleep, 60)
            await type_in(text, names)
            tasks.cancel_all()

    virtual_loop.run(main, collect=False)


def in_map_for_threads(text: str, names: Names) -> None:
    clock = namedtasks.testing.ManualClock()
    end = threading.Event()
    with namedtasks.ThreadTaskMap(clock=clock, instruments=()) as tasks:
        tasks.submit("pvc-2", _fail).exception()
        tasks.submit("pvc-1", end.wait)
        try:
            in_python(text, names | {"tasks": tasks})
        finally:
            end.set()


IN_MAPS: dict[type, Shell] = {
    namedtasks.TaskMap: in_map_for_trio,
    namedtasks.ThreadTaskMap: in_map_for_threads,
    namedtasks.asyncio.TaskMap: in_map_for_asyncio,
}


def _fail() -> None:
    raise OSError("device busy")


async def _fail_soon() -> None:
    _fail()
