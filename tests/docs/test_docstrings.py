"""Every public name has an example in its docstring, which runs and shows what it says."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pathlib
import pickle
import pydoc
import re
from typing import Any

import attrs
import pytest

import namedtasks
import namedtasks.asyncio
from namedtasks._events import EVENTS
from namedtasks._version import show_fields
from tests.docs import docstrings
from tests.docs.docstrings import Docstring, Shell, examples_in
from tests.public_api import MODULES, public

DOCSTRINGS = list(docstrings.docstrings())
WITH_EXAMPLES = [one for one in DOCSTRINGS if ">>> " in one.text]

ALL_METHODS_OF = {
    "namedtasks.TaskMap",
    "namedtasks.TaskHandle",
    "namedtasks.ThreadTaskMap",
    "namedtasks.TaskFuture",
    "namedtasks.asyncio.TaskMap",
}
"""What one lives with: each method has an example. Elsewhere that of the class may do."""


def test_every_public_name_has_an_example() -> None:
    wanted = [
        one
        for one in DOCSTRINGS
        if not one.is_method or one.name.rpartition(".")[0] in ALL_METHODS_OF
    ]
    without = {one.name for one in wanted if not has_example(one)}
    assert without == set()


def has_example(docstring: Docstring) -> bool:
    section = re.search(r"^Example:\n", docstring.text, re.MULTILINE)
    return section is not None and examples_in(docstring.text[section.end() :]) != []


def test_no_example_is_left_out() -> None:
    sources = pathlib.Path(namedtasks.__path__[0]).rglob("*.py")
    written = sum(
        len(re.findall(r"^ *>>> ", source.read_text(encoding="utf-8"), re.MULTILINE))
        for source in sources
    )
    assert written == sum(len(examples_in(text)) for text in {one.text for one in DOCSTRINGS})


@pytest.mark.parametrize("docstring", WITH_EXAMPLES, ids=lambda one: one.name)
def test_the_examples_of_a_docstring_run(docstring: Docstring) -> None:
    docstrings.run_docstring(docstring)


# Fields

CLASSES: dict[str, Any] = {
    f"{module.__name__}.{name}": value
    for module in MODULES
    for name, value in public(module).items()
    if docstrings.fields(value)
}
RECORDS = {
    "namedtasks.Backoff",
    "namedtasks.Failure",
    "namedtasks.Outcome",
    "namedtasks.PendingRun",
    "namedtasks.TaskMapStatistics",
    "namedtasks.abc.FailedRun",
    "namedtasks.instruments.TaskEvent",
    *(f"namedtasks.instruments.{event.__name__}" for event in EVENTS.values()),
}


def test_the_records_and_whatever_has_properties_are_known() -> None:
    assert CLASSES.keys() >= RECORDS
    assert {"namedtasks.BackoffError", "namedtasks.CurrentRun"} <= CLASSES.keys()
    wanted = ["error", "failures", "gave_up", "name", "operation", "retry_at"]
    assert docstrings.fields(namedtasks.Failure) == wanted


@pytest.mark.parametrize("name", CLASSES)
def test_help_shows_each_field_with_its_text(name: str) -> None:
    """As `python -m pydoc` does."""
    kind = CLASSES[name]
    page = pydoc.plain(pydoc.render_doc(kind))
    for field in docstrings.fields(kind):
        shown = re.search(rf"^ \|  {field}\n \|      (\S.*)$", page, re.MULTILINE)
        assert shown is not None, f"help() shows no text for {field}"


def test_help_shows_the_text_that_is_below_the_field() -> None:
    page = pydoc.plain(pydoc.render_doc(namedtasks.PendingRun))
    assert " |  name\n |      The task's name.\n" in page


def test_fields_have_no_text_where_there_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    @attrs.frozen
    class Record:
        name: str
        """The name."""

    def no_source(_: object) -> str:
        raise OSError("could not get source code")

    show_fields(Record)
    monkeypatch.setattr(inspect, "getsource", no_source)
    assert inspect.getdoc(vars(Record)["name"]) is None


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_is_copied_and_subclassed_as_any_class_of_attrs(name: str) -> None:
    kind = CLASSES[name]
    fields = dict.fromkeys(attrs.fields_dict(kind)) if kind is not namedtasks.Backoff else {}
    record = kind(**fields)
    assert pickle.loads(pickle.dumps(record)) == copy.copy(record) == record
    assert set(vars(kind)["__slots__"]) <= {*attrs.fields_dict(kind), "__weakref__"}


# What runs them

SHELLS: list[Shell] = [
    docstrings.in_trio,
    docstrings.in_asyncio,
    docstrings.in_python,
    *docstrings.IN_MAPS.values(),
]
in_each_shell = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.__name__)

RAISES = ">>> int('x')\nTraceback (most recent call last):\n    ...\nValueError: {}\n"
WHY = "invalid literal for int() with base 10: 'x'"


@in_each_shell
@pytest.mark.parametrize(
    "text",
    [
        ">>> x = 1\n>>> x + 1\n2\n",
        ">>> for x in (1, None, 2):\n...     x\n1\n2\n",
        ">>> print('one')\none\n",
        RAISES.format(WHY),
    ],
)
def test_what_an_example_shows_is_what_it_says(shell: Shell, text: str) -> None:
    shell(text, {})


@in_each_shell
@pytest.mark.parametrize(
    "text",
    [
        ">>> 1 + 1\n3\n",
        ">>> 1 + 1\n",
        ">>> x = 1\n1\n",
        ">>> 1 + 1\n2\n3\n",
        ">>> print('a  b')  # doctest: +NORMALIZE_WHITESPACE\na b\n",
        RAISES.format("something else"),
        RAISES.format(WHY).replace("int('x')", "int('1')"),
        RAISES.format(WHY).replace("int('x')", "print(1), int('x')"),
    ],
)
def test_an_example_may_show_nothing_else_than_it_says(shell: Shell, text: str) -> None:
    with pytest.raises(AssertionError):
        shell(text, {})


@in_each_shell
def test_an_exception_that_an_example_does_not_say_comes_out(shell: Shell) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        shell(">>> int('x')\n1\n", {})


@in_each_shell
def test_where_nothing_is_typed_nothing_is_shown(shell: Shell) -> None:
    with pytest.raises(AssertionError, match="no example"):
        shell("It adds: 1 + 1.\n", {})


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("shell", "world"), [(docstrings.in_trio, "trio"), (docstrings.in_asyncio, "asyncio")]
)
def test_one_may_await_and_hours_pass_at_once(shell: Shell, world: str) -> None:
    shell(f">>> await {world}.sleep(3600)\n>>> 'later'\n'later'\n", {})
    with pytest.raises(AssertionError):
        shell(f">>> await {world}.sleep(3600) or 'later'\n'earlier'\n", {})


def test_python_itself_awaits_nothing() -> None:
    with pytest.raises(AssertionError, match="awaits"):
        docstrings.in_python(">>> await asyncio.sleep(0)\n", {"asyncio": asyncio})


def test_an_example_without_await_may_start_a_trio_run() -> None:
    docstrings.in_trio(">>> trio.run(trio.sleep, 0)\n", {})


def test_the_names_of_the_module_are_at_hand() -> None:
    assert docstrings.names_of("namedtasks.asyncio")["TaskMap"] is namedtasks.asyncio.TaskMap
    assert docstrings.names_of("namedtasks")["TaskMap"] is namedtasks.TaskMap


def test_what_all_maps_have_is_tried_in_each_of_them() -> None:
    for kind, shell in docstrings.IN_MAPS.items():
        shell(f">>> tasks\n<{kind.__module__}.{kind.__name__} running=1 waiting=1>\n", {})
    for verb in ("cancel", "state", "keys"):
        tried = [
            one.map_of
            for one in DOCSTRINGS
            if one.name.endswith(f"TaskMap.{verb}") and one.module != "namedtasks.abc"
        ]
        assert set(docstrings.IN_MAPS) == set(tried)
    assert all(one.map_of is None for one in DOCSTRINGS if "start" in one.name)
