"""The public names: what they are, where they live, that each says what it is for."""

import inspect
import re
import subprocess
import sys
import typing

import pytest

import namedtasks
import namedtasks.asyncio
from tests.docs.docstrings import BELOW, text_below
from tests.public_api import MODULES, PAGE, is_alias, page, public


def test_the_public_api_is_what_its_page_says() -> None:
    """A new line there is a promise; a line that goes or changes is a broken one.

    `make api` writes the page; its diff belongs into the change that is its
    reason, with a news fragment.
    """
    assert PAGE.read_text(encoding="utf-8").splitlines() == page().splitlines()


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
                continue  # its docstring stands below it in the source
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


TOP = [
    (f"{module.__name__}.{name}", value)
    for module in MODULES
    for name, value in public(module).items()
    if name not in BELOW  # what these say stands below them in the source
]


@pytest.mark.parametrize(("name", "thing"), TOP, ids=[name for name, _ in TOP])
def test_every_public_name_says_since_when_it_is_there(name: str, thing: object) -> None:
    doc = thing.__doc__ or ""  # of its own, and not of a base
    assert re.search(r"^ *\.\. versionadded:: \d+\.\d+$", doc, re.MULTILINE), name


@pytest.mark.parametrize("name", BELOW)
def test_a_name_that_is_bound_to_a_value_says_what_it_is_for(name: str) -> None:
    """In the string below it, which editors and documentation tools read."""
    assert ".. versionadded:: 0.1" in text_below(BELOW[name], name)


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


def test_the_package_has_its_public_names_and_modules_as_attributes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are imported when they are first used."""
    assert {*namedtasks.__all__, "__version__"} <= set(dir(namedtasks))
    for module in ("abc", "instruments"):
        monkeypatch.delattr(namedtasks, module, raising=False)
        assert getattr(namedtasks, module) is sys.modules[f"namedtasks.{module}"]
    with pytest.raises(AttributeError, match="no attribute 'start_soon'"):
        getattr(namedtasks, "start_soon")  # noqa: B009 - for mypy


def test_the_version_is_told() -> None:
    assert namedtasks.__version__.startswith("0.")


@pytest.mark.parametrize(
    "record", [namedtasks.Backoff, namedtasks.Failure, namedtasks.TaskMapStatistics]
)
def test_the_hints_of_records_can_be_read_at_run_time(record: type) -> None:
    """Serialisers and documentation tools do; the public place knows less than the module."""
    assert typing.get_type_hints(record)
