"""Every example in the README and the docs runs, and prints what is shown."""

import pathlib
import re
from collections.abc import Iterator

import pytest
import stamina.instrumentation

from tests.docs.pages import DIALECTS, EACH_ALONE, PAGES, README, ROOT, for_dialect, run_page


@pytest.fixture
def without_hooks() -> Iterator[None]:
    """Stamina prints its retries if structlog is installed; a reader may have stamina alone."""
    stamina.instrumentation.set_on_retry_hooks(())
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.usefixtures("without_hooks")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One after the other, as a reader would type them."""
    run_page(page, tmp_path)


def page_with(folder: pathlib.Path, *blocks: str) -> pathlib.Path:
    page = folder / "page.md"
    page.write_text("\n".join(f"```{block}\n```\n" for block in blocks), encoding="utf-8")
    return page


def test_what_an_example_prints_must_be_what_the_page_shows(tmp_path: pathlib.Path) -> None:
    run_page(page_with(tmp_path, "python\nprint(1)", "text\n1"), tmp_path)
    with pytest.raises(AssertionError):
        run_page(page_with(tmp_path, "python\nprint(1)", "text\n2"), tmp_path)


@pytest.mark.parametrize("after", [[], ["python\nx = 1"]])
def test_what_an_example_prints_must_be_shown(tmp_path: pathlib.Path, after: list[str]) -> None:
    with pytest.raises(AssertionError, match="is not shown"):
        run_page(page_with(tmp_path, "python\nprint(1)", *after), tmp_path)


def test_an_example_with_a_file_name_is_a_program(tmp_path: pathlib.Path) -> None:
    run_page(
        page_with(
            tmp_path,
            "python\n# one.py\nx = 1\nif __name__ == '__main__':\n    print('one')",
            "text\none",
            "python\n# two.py\nimport one\nprint(one.x)",
            "text\n1",
        ),
        tmp_path,
    )


def test_an_example_that_is_a_test_is_given_to_pytest(tmp_path: pathlib.Path) -> None:
    test = "python\n# test_it.py\ndef test_it():\n    assert {}"
    shown = "text\n.                                                                        [100%]"
    run_page(page_with(tmp_path, test.format(True), shown + "\n1 passed in 9s"), tmp_path)
    with pytest.raises(AssertionError, match="1 failed"):
        run_page(page_with(tmp_path, test.format(False)), tmp_path)


def test_on_a_page_to_copy_from_no_example_leans_on_another(tmp_path: pathlib.Path) -> None:
    page = page_with(tmp_path, "python\nx = 1", "python\ny = x")
    run_page(page, tmp_path)
    page.write_text(f"{EACH_ALONE}\n{page.read_text()}", encoding="utf-8")
    with pytest.raises(NameError):
        run_page(page, tmp_path)


TABS = """<!-- tabs -->

**asyncio**

```python
word = "loop"
```

**trio**

```python
word = "nursery"
```

<!-- end of tabs -->

```python
print(word)
```

```text
{}
```
"""


def test_a_page_with_tabs_runs_once_for_each_dialect(tmp_path: pathlib.Path) -> None:
    """A reader follows one of the tabs, so each run has that one and what is outside tabs."""
    page = tmp_path / "page.md"
    for shown in ("loop", "nursery"):  # right for one of them
        page.write_text(TABS.format(shown), encoding="utf-8")
        (tmp_path / shown).mkdir()
        with pytest.raises(AssertionError, match=r"loop.*nursery|nursery.*loop"):
            run_page(page, tmp_path / shown)
    asyncio = for_dialect(TABS, "asyncio")
    assert "loop" in asyncio
    assert "nursery" not in asyncio
    assert asyncio.count("\n") == TABS.count("\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("**trio**", "outside tabs"),
        ("<!-- tabs -->\n**trio**\n<!-- tabs -->", "tabs inside tabs"),
        ("<!-- tabs -->\n**trio**\n**asyncio**\n<!-- end of tabs -->", "the order is"),
        ("<!-- tabs -->\n**trio**\n**trio**\n<!-- end of tabs -->", "the order is"),
        ("<!-- tabs -->\nwords\n**trio**\n<!-- end of tabs -->", "text before the first tab"),
        ("<!-- tabs -->\n<!-- end of tabs -->", "are empty"),
        ("<!-- end of tabs -->", "have not begun"),
        ("<!-- tabs -->\n**trio**", "do not end"),
    ],
)
def test_tabs_have_the_form_that_the_site_needs(text: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        for_dialect(text, "trio")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tabs_of_a_page_are_in_that_form(page: pathlib.Path) -> None:
    for_dialect(page.read_text(encoding="utf-8"), "asyncio")


def test_an_example_on_asyncio_runs_in_virtual_time(tmp_path: pathlib.Path) -> None:
    program = """python
import asyncio
async def main():
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(10_000)
    return asyncio.get_running_loop().time() - begun
print(asyncio.run(main()))"""
    run_page(page_with(tmp_path, program, "text\n10000.0"), tmp_path)


def test_each_link_between_the_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def anchors_of(page: pathlib.Path) -> set[str]:
    """What the headings of *page* are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_link_to_a_heading_finds_it() -> None:
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
        for target, anchor in links:
            found = anchors_of(page.parent / target if target else page)
            assert anchor in found, f"{page.relative_to(ROOT)}: {target}#{anchor}"


def test_the_readme_has_programs_for_each_dialect() -> None:
    text = README.read_text(encoding="utf-8")
    for dialect in DIALECTS:
        assert for_dialect(text, dialect).count("```python") >= 2
