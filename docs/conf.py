"""The settings of the site that ``make docs`` builds: no network, and each warning is an error.

The pages are written to be read on the repository's website, too. What the
site needs in another form is changed here: the lists of pages in README.md
become the tables of contents; a link to a folder leads to its README; a picture
for light and dark becomes two; and what stands between ``<!-- tabs -->`` and
``<!-- end of tabs -->`` becomes a tab for each dialect.

Docstrings are reStructuredText, and single backticks are cross-references. One that leads out of
the package becomes plain text if its target can be imported. So an unknown name is reported,
without the inventories of other projects, which would need the network.
"""

from __future__ import annotations

import builtins
import importlib
import os
import pathlib
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import attrs  # noqa: E402

import namedtasks  # noqa: E402

for _name in namedtasks.__all__:  # binds the names that are imported when they are first used
    getattr(namedtasks, _name)

SAME_AS = {
    "namedtasks.instruments.Instrument": "namedtasks.abc.Instrument",
    "namedtasks.instruments.LoggingInstrument": "namedtasks.LoggingInstrument",
}
"""Second names of objects, each with the name that the reference uses."""
_WITHOUT_ARGUMENTS = {
    "namedtasks.TaskMap",
    "namedtasks.TaskHandle",
    "namedtasks.TaskFuture",
    "namedtasks.CurrentRun",
    "namedtasks.Observation",
    "namedtasks.State",
    "namedtasks.abc.BackoffPolicy",
    "namedtasks.abc.Clock",
    "namedtasks.asyncio.TaskMap",
}

# Settings of Sphinx

project = "namedtasks"
author = "The namedtasks developers"
project_copyright = author
release = version = namedtasks.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_design", "sphinxcontrib_trio"]
root_doc = "index"
exclude_patterns = ["_build", "README.md"]
nitpicky = True
smartquotes_action = "De"  # no quotes, because most quoted text here is code
default_role = "any"
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_use_legacy_class_based = True  # sphinxcontrib-trio derives from the legacy classes
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"namedtasks {release}"
html_copy_source = False
html_show_sphinx = False
html_use_index = False  # the search also finds names


# Changes of the pages for the site

_ROOM = re.compile(r"^## (?P<title>[^\n]+)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<path>[^)#:\s]+)(?P<heading>#[^)]*)?\)")
_PICTURE = re.compile(
    r'<picture>\s*<source [^>]*srcset="(?P<dark>[^"]+)">\s*'
    r'<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)">\s*</picture>'
)
_TABS = re.compile(r"^<!-- tabs -->\n(?P<tabs>.*?)^<!-- end of tabs -->$", re.MULTILINE | re.DOTALL)
_TAB = re.compile(
    r"^\*\*(?P<dialect>asyncio|threads|trio)\*\*\n(?P<text>.*?)(?=^\*\*(?:asyncio|threads|trio)\*\*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_BENCHMARKS = ROOT / "benchmarks" / "README.md"
_MOVED = {
    DOCS / "README.md": DOCS / "index.md",
    _BENCHMARKS: DOCS / "explanation" / "benchmarks.md",
}
"""Pages that have another place on the site."""


def rooms() -> dict[str, str]:
    """Return the lists of pages in README.md, by folder."""
    found: dict[str, str] = {}
    for room in _ROOM.finditer((DOCS / "README.md").read_text(encoding="utf-8")):
        link = _LINK.search(room["text"])
        assert link is not None, f"no page in {room['title']}"
        found[link["path"].partition("/")[0]] = room["text"].strip()
    return found


def page(name: str, text: str) -> str:
    """Return the text of the page *name* on the site, from the *text* of its file."""
    folder = (DOCS / name).parent
    if name == "index":
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        text = relinked(doubled(readme.partition("## Try it")[0]), ROOT, folder)
        lists = (DOCS / "README.md").read_text(encoding="utf-8")
        text += lists.partition("\n")[2] + contents([f"{room}/index" for room in rooms()])
    elif name.endswith("/index"):
        pages = rooms()[folder.name]
        text += relinked(pages, DOCS, folder) + contents(
            [target for target in _targets(relinked(pages, DOCS, folder)) if target[0] != "."]
        )
    elif DOCS / f"{name}.md" == _MOVED[_BENCHMARKS]:
        text = relinked(_BENCHMARKS.read_text(encoding="utf-8"), _BENCHMARKS.parent, folder)
    elif name.startswith("examples/") and (folder / "controller.py").exists():
        text += "\n## controller.py\n\n```{literalinclude} controller.py\n```\n"
    return relinked(tabbed(doubled(text)), folder, folder)


def tabbed(text: str) -> str:
    """Turn the tabs in *text* into those of the site, where a choice holds for all pages."""

    def tab(found: re.Match[str]) -> str:
        name = found["dialect"]
        return f"````{{tab-item}} {name}\n:sync: {name}\n{found['text']}````\n"

    def tabs(found: re.Match[str]) -> str:
        items = _TAB.sub(tab, found["tabs"])
        return f"`````{{tab-set}}\n:sync-group: dialect\n{items}`````"

    return _TABS.sub(tabs, text)


def doubled(text: str) -> str:
    """Return *text* with each picture for light and dark as two; the theme shows one of them."""
    return _PICTURE.sub(
        r"![\g<alt>](\g<light>){.only-light}\n![\g<alt>](\g<dark>){.only-dark}", text
    )


def relinked(text: str, old: pathlib.Path, new: pathlib.Path) -> str:
    """Return *text* with local links that work in the folder *new* instead of *old*."""

    def relink(link: re.Match[str]) -> str:
        target = (old / link["path"]).resolve()
        if not target.exists():  # code that looks like a link
            return link[0]
        if target.is_dir():
            target /= "README.md"
        path = os.path.relpath(_MOVED.get(target, target), new)
        return f"]({path}{link['heading'] or ''})"

    return _LINK.sub(relink, text)


def contents(pages: list[str]) -> str:
    """Return a table of contents that is only visible in the margin."""
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _targets(text: str) -> Iterator[str]:
    for link in _LINK.finditer(text):
        yield link["path"]


# Targets of names


def _modules() -> list[types.ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(namedtasks.__path__, "namedtasks.")]
    return [namedtasks, *(importlib.import_module(name) for name in names)]


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def home_of(thing: object) -> str | None:
    """Return the public name of *thing*; None if it has none in the package."""
    if not str(getattr(thing, "__module__", "")).startswith("namedtasks"):
        return None
    for module in _modules():
        for name, value in vars(module).items():
            if value is thing and _is_public(f"{module.__name__}.{name}"):
                return SAME_AS.get(f"{module.__name__}.{name}", f"{module.__name__}.{name}")
    return None


def find(name: str) -> object:
    """Return the object called *name*, with its module or built in; None if there is none."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return getattr(builtins, name, None)


def is_type_variable(name: str) -> bool:
    """Return whether *name*, with or without its module, is a type variable of the package."""
    name = name.rpartition(".")[2]
    kinds = (typing.TypeVar, typing.TypeVarTuple)
    return any(isinstance(vars(module).get(name), kinds) for module in _modules())


def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Resolve a cross-reference to the public place of its target; plain text if it is outside."""
    target = str(node["reftarget"])
    if node.get("refdomain") not in ("py", None, "") or is_type_variable(target):
        return text if node.get("refdomain") == "py" else None
    thing = find(target)
    home = home_of(thing)
    if home is not None:
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, text)
    return None if thing is None or target.startswith("namedtasks") else text


# Docstrings and signatures


def public_bases(_app: Any, _name: str, _cls: type, _options: Any, bases: list[type]) -> None:
    """Replace private base classes by their first public base class."""
    bases[:] = [next(kind for kind in base.__mro__ if _is_public(kind.__name__)) for base in bases]


def signature_of(
    _app: Any, what: str, name: str, thing: Any, _options: Any, arguments: str, returned: str
) -> tuple[str, str] | None:
    """Hide the arguments of classes that users do not call, and the type of an async block."""
    if what == "class" and name in _WITHOUT_ARGUMENTS:
        return "", ""
    if "AbstractAsyncContextManager" in str(returned):
        returned = ""
    if "attr_dict" in str(arguments):  # the signature that attrs makes for converters
        arguments = arguments_of(thing)
    # The type of a lock is a function whose own name differs.
    arguments = str(arguments or "").replace("_thread.allocate_lock", "threading.Lock")
    arguments = arguments.replace(", **unknown: Never", "")  # there for an error that names a cure
    return arguments.replace("random_module.", "random."), returned


def arguments_of(setting: type) -> str:
    """Return the fields of a *setting* as arguments, with types and defaults."""
    kinds = [
        field.type.__name__ if isinstance(field.type, type) else str(field.type)
        for field in attrs.fields(setting)
    ]
    shown = [
        f"{field.name}: {kind} = {field.default!r}"
        for field, kind in zip(attrs.fields(setting), kinds, strict=True)
    ]
    return f"(*, {', '.join(shown)})"


def read_fields(analyzer_of: Callable[[str], Any]) -> None:
    """Copy the docs of fields to the module of the public name, where autodoc looks for them."""
    modules = {module.__name__: module for module in _modules()}
    analyzers = {name: analyzer_of(name) for name in modules}
    for analyzer in analyzers.values():
        analyzer.analyze()
    for public in filter(_is_public, modules):
        shown = analyzers[public]
        for name, value in vars(modules[public]).items():
            for place, written in analyzers.items():
                if vars(modules[place]).get(name) is not value or not _is_public(name):
                    continue
                if getattr(value, "__module__", public) not in (public, place, "typing"):
                    continue
                for table in ("attr_docs", "annotations", "overloads", "tagorder"):
                    for key, found in getattr(written, table).items():
                        if name == _first(key):
                            getattr(shown, table).setdefault(key, found)


def _first(key: str | tuple[str, str]) -> str:
    """Return the outermost name of the *key* of an analyzer."""
    path = key if isinstance(key, str) else ".".join(key)
    return path.strip(".").partition(".")[0]


def setup(app: Any) -> None:
    """Connect the functions above to Sphinx; the tests read this file without Sphinx."""
    pycode = importlib.import_module("sphinx.pycode")
    napoleon = importlib.import_module("sphinx.ext.napoleon")

    def change_page(_app: Any, name: str, source: list[str]) -> None:
        source[0] = page(name, source[0])

    def read_google_style(
        _app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
    ) -> None:
        # To napoleon, a property's "The names: those that ..." begins with a type.
        what = "function" if what in ("attribute", "data", "property") else what
        read = napoleon.GoogleDocstring(lines, napoleon.Config(), app, what, name, thing, options)
        lines[:] = str(read).split("\n")

    read_fields(pycode.ModuleAnalyzer.for_module)
    app.connect("source-read", change_page)
    app.connect("autodoc-process-docstring", read_google_style)
    app.connect("autodoc-process-signature", signature_of)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("missing-reference", resolve)
