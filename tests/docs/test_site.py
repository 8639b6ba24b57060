"""The site that `make docs` makes: it shows every public name, and what it makes of the pages."""

import importlib.util
import inspect
import pathlib
import re
from typing import Any

import attrs
import pytest

import namedtasks
import namedtasks.instruments
from tests.docs.docstrings import fields
from tests.docs.pages import DIALECTS, ROOT
from tests.public_api import MODULES, public

DOCS = ROOT / "docs"
DIRECTIVE = re.compile(r"^\.\. auto\w+:: ([\w.]+)$", re.MULTILINE)


def read_conf() -> Any:
    """The settings of Sphinx, as a module; nothing of Sphinx is needed for that."""
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


conf = read_conf()


def shown() -> list[str]:
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def test_the_reference_has_every_public_name_once() -> None:
    """Of two names for one thing it has one, and a sentence for the other."""
    names = {f"{module.__name__}.{name}" for module in MODULES for name in public(module)}
    assert sorted(names - conf.SAME_AS.keys()) == sorted(shown())


def test_the_reference_shows_the_fields_of_every_class() -> None:
    """From the strings below them, which Sphinx reads; those of a base with the base, or here."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    options = dict(re.findall(r"^\.\. auto\w+:: ([\w.]+)\n((?: +:.*\n)*)", text, re.MULTILINE))
    for name, shown in options.items():
        kind = conf.find(name)
        if fields(kind):
            assert re.search(r"^ +:members:$", shown, re.MULTILINE), (
                f"no fields of {name} are shown"
            )
            hidden = set(re.findall(r"\w+", "".join(re.findall(r":exclude-members:(.*)", shown))))
            assert not hidden & set(fields(kind))


def test_every_field_has_a_string_below_it() -> None:
    for module in MODULES:
        for name, value in public(module).items():
            texts: dict[str, str] = vars(value)["__slots__"] if attrs.has(value) else {}
            for field in [one for one in texts if not one.startswith("_")]:
                assert texts[field], f"{name}.{field} has none"


def test_every_public_name_says_since_when_it_is_there() -> None:
    for module in MODULES:
        for name, value in public(module).items():
            if inspect.isclass(value) or inspect.isfunction(value):
                assert ".. versionadded:: " in (inspect.getdoc(value) or ""), name


def test_a_second_name_is_told_where_its_kind_is() -> None:
    text = (DOCS / "reference" / "instruments.md").read_text(encoding="utf-8")
    for other, name in conf.SAME_AS.items():
        assert conf.find(other) is conf.find(name)
        assert f"`{other}` is the same class" in text


def test_each_page_of_a_room_is_in_its_contents() -> None:
    """Sphinx would tell too, but it is not always at hand."""
    for room in conf.rooms():
        text = conf.page(f"{room}/index", "")
        for page in (DOCS / room).rglob("*.md"):
            if page.name != "index.md":
                assert f"\n{page.relative_to(DOCS / room)}\n" in text


def test_the_first_page_leads_to_the_rooms() -> None:
    text = conf.page("index", "")
    assert text.startswith("# namedtasks\n")
    assert "\ntutorial/index\nhow-to/index\nreference/index\nexplanation/index\n" in text
    for dialect in DIALECTS:
        assert f"](tutorial/{dialect}.md)" in text


def test_the_first_page_has_the_first_program_in_tabs() -> None:
    """The site's first page ends before "Try it", which is for a checkout."""
    text = conf.page("index", "")
    for dialect in DIALECTS:
        assert f"````{{tab-item}} {dialect}\n" in text


@pytest.mark.parametrize(
    ("written", "on_the_site"),
    [
        ("[a](../examples/volume_controller)", "[a](../examples/volume_controller/README.md)"),
        ("[a](../../benchmarks/README.md#the-floors)", "[a](benchmarks.md#the-floors)"),
        ("[a](../README.md)", "[a](../index.md)"),
        ("[a](../../LICENSE)", "[a](../../LICENSE)"),
        ("[a](states.md#at-the-end)", "[a](states.md#at-the-end)"),
        ("`f[x](y)`", "`f[x](y)`"),
        ("[a](https://trio.readthedocs.io)", "[a](https://trio.readthedocs.io)"),
    ],
)
def test_links_lead_where_they_do_on_the_forge(written: str, on_the_site: str) -> None:
    assert on_the_site == conf.page("explanation/anything", written)


def test_a_picture_for_light_and_dark_becomes_two() -> None:
    text = conf.page(
        "explanation/x",
        '<picture>\n<source media="" srcset="d.svg">\n<img alt="A" src="l.svg">\n</picture>',
    )
    assert text == "![A](l.svg){.only-light}\n![A](d.svg){.only-dark}"


def test_tabs_become_the_sites() -> None:
    """With a line between two of them, and the same choice on all pages."""
    written = (
        "A\n<!-- tabs -->\n\n**asyncio**\n\n```python\n1\n```\n\n"
        "**trio**\n\n2\n\n<!-- end of tabs -->\nB"
    )
    made = (
        "A\n`````{tab-set}\n:sync-group: dialect\n\n"
        "````{tab-item} asyncio\n:sync: asyncio\n\n```python\n1\n```\n\n````\n"
        "````{tab-item} trio\n:sync: trio\n\n2\n\n````\n`````\nB"
    )
    assert conf.page("explanation/anything", written) == made


def test_the_first_pages_picture_is_found_from_there() -> None:
    """It is README.md's, which is one folder up."""
    text = conf.page("index", "")
    assert "](explanation/glance-light.svg){.only-light}" in text
    assert "](explanation/glance-dark.svg){.only-dark}" in text


@pytest.mark.parametrize(
    ("thing", "home"),
    [
        (namedtasks.Backoff, "namedtasks.Backoff"),
        (namedtasks.instruments.Instrument, "namedtasks.abc.Instrument"),
        (namedtasks.instruments.TaskFailed, "namedtasks.instruments.TaskFailed"),
        (pathlib.Path, None),
        (None, None),
    ],
)
def test_names_lead_to_their_public_place(thing: object, home: str | None) -> None:
    assert home == conf.home_of(thing)


@pytest.mark.parametrize(
    ("name", "is_found"),
    [("KeyError", True), ("trio.to_thread.run_sync", True), ("trio.too_late", False), ("", False)],
)
def test_what_is_nowhere_is_not_found(name: str, is_found: bool) -> None:
    assert is_found == (conf.find(name) is not None)


def test_type_variables_are_known_with_and_without_their_module() -> None:
    assert conf.is_type_variable("Args")
    assert conf.is_type_variable("namedtasks._trio.task_map.T")
    assert not conf.is_type_variable("Backoff")


def test_a_class_is_shown_with_its_public_base() -> None:
    bases = [namedtasks.TaskFailedError.__base__]
    conf.public_bases(None, "", namedtasks.TaskFailedError, None, bases)
    assert [namedtasks.NamedTasksError] == bases


def test_a_setting_is_shown_with_types_and_defaults() -> None:
    """Of attrs' own signature a converter leaves neither."""
    shown = conf.arguments_of(namedtasks.Backoff)
    assert shown.startswith("(*, initial: float = 0.5, factor: float = 2.0, maximum: float = 122.0")
    assert shown.endswith(
        "give_up_after: int | None = None, exempt: tuple[type[BaseException], ...] = (), "
        "reset_after: float | None = None)"
    )
