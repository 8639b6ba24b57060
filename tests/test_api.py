"""The public names: what they are, where they live, that each says what it is for."""

import inspect
import subprocess
import sys
import typing
from types import ModuleType
from typing import Any

import pytest

import namedtasks
import namedtasks.abc
import namedtasks.asyncio
import namedtasks.executors
import namedtasks.instruments
import namedtasks.testing

MODULES = [
    namedtasks,
    namedtasks.abc,
    namedtasks.asyncio,
    namedtasks.executors,
    namedtasks.instruments,
    namedtasks.testing,
]


def public(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (getattr(value, "__module__", "").startswith("namedtasks") or is_alias(value))
    }


def is_alias(value: object) -> bool:
    """Whether it is the name of some literals, which knows no place of its own."""
    return typing.get_origin(value) is typing.Literal


def test_the_page_of_api_is_this() -> None:
    """A new name here is a promise; a name that goes is a broken one."""
    assert sorted(public(namedtasks)) == [
        "ANY",
        "AlreadyRunningError",
        "Backoff",
        "BackoffError",
        "ClosedError",
        "CurrentRun",
        "Failure",
        "GaveUpError",
        "IfBusy",
        "LoggingInstrument",
        "NamedTasksError",
        "RecordedError",
        "RefusedError",
        "State",
        "TaskCancelledError",
        "TaskFailedError",
        "TaskFuture",
        "TaskHandle",
        "TaskMap",
        "TaskMapStatistics",
        "ThreadTaskMap",
        "current_run",
        "open_task_map",
    ]
    assert sorted(public(namedtasks.abc)) == ["BackoffPolicy", "Clock", "Instrument"]
    assert sorted(public(namedtasks.executors)) == ["from_pool"]
    assert sorted(public(namedtasks.testing)) == [
        "ManualClock",
        "RecordingInstrument",
        "check_executor",
    ]
    assert sorted(public(namedtasks.asyncio)) == ["TaskMap", "open_task_map"]


def test_if_busy_is_what_the_maps_take() -> None:
    """Who passes it along types it so."""
    for start in (
        namedtasks.TaskMap.start_soon,
        namedtasks.TaskMap.start_thread_soon,
        namedtasks.TaskMap.post,
        namedtasks.ThreadTaskMap.submit,
        namedtasks.asyncio.TaskMap.create_task,
        namedtasks.asyncio.TaskMap.run_in_executor,
        namedtasks.asyncio.TaskMap.post,
    ):
        assert inspect.signature(start).parameters["if_busy"].annotation == "IfBusy"
    assert typing.get_args(namedtasks.IfBusy) == ("refuse", "skip", "join", "replace", "queue")


def documented() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for module in MODULES:
        for name, value in public(module).items():
            if is_alias(value):
                continue  # its docstring stands below it in the source, for editors
            found.append((f"{module.__name__}.{name}", value))
            if inspect.isclass(value):
                found += [
                    (f"{module.__name__}.{name}.{member}", thing)
                    for member, thing in vars(value).items()
                    if not member.startswith("_")
                    and (inspect.isfunction(thing) or isinstance(thing, property))
                ]
    return found


@pytest.mark.parametrize(("name", "thing"), documented(), ids=[name for name, _ in documented()])
def test_every_public_name_says_what_it_is_for(name: str, thing: object) -> None:
    doc = inspect.getdoc(thing)
    assert doc, f"{name} has no docstring"
    assert len(doc.splitlines()[0]) <= 100


def test_in_the_trio_shell_each_docstring_says_whether_it_is_a_checkpoint() -> None:
    for kind in (namedtasks.TaskMap, namedtasks.TaskHandle):
        for name, thing in vars(kind).items():
            if name.startswith("_") or not inspect.isfunction(thing):
                continue
            doc = inspect.getdoc(thing) or ""
            if name in ("keys", "values", "items"):
                continue  # a mapping's methods never are
            is_async = inspect.iscoroutinefunction(thing)
            assert ("Not a checkpoint." in doc) == (not is_async), name
            assert is_async == ("Checkpoint." in doc), name


def test_the_asyncio_shell_says_where_its_names_live() -> None:
    for value in public(namedtasks.asyncio).values():
        assert value.__module__ == "namedtasks.asyncio"


def test_importing_it_imports_nothing_but_trio_and_attrs() -> None:
    """Beside the standard library and what trio brings along."""
    code = (
        "import sys, trio, attrs; before = set(sys.modules); import namedtasks; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - sys.stdlib_module_names))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "['namedtasks']"


def test_the_version_is_told() -> None:
    assert namedtasks.__version__.startswith("0.")


@pytest.mark.parametrize(
    "record", [namedtasks.Backoff, namedtasks.Failure, namedtasks.TaskMapStatistics]
)
def test_the_hints_of_records_can_be_read_at_run_time(record: type) -> None:
    """Serialisers and documentation tools do; the public place knows less than the module."""
    assert typing.get_type_hints(record)
