"""A release can be made at any time, and only of a state that is in order."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]


def test_each_news_fragment_has_a_type_and_a_text() -> None:
    """The changelog would silently leave out any other file."""
    kinds = "|".join(kind["directory"] for kind in SETTINGS["type"])
    for fragment in (ROOT / SETTINGS["directory"]).glob("*"):
        if fragment.name not in SETTINGS["ignore"]:
            assert re.fullmatch(rf"[a-z0-9-]+\.({kinds})\.md", fragment.name), fragment.name
            assert fragment.read_text(encoding="utf-8").strip().endswith("."), fragment.name


def test_the_changelog_has_a_place_for_the_next_entry() -> None:
    changelog = (ROOT / SETTINGS["filename"]).read_text(encoding="utf-8")
    assert changelog.count("<!-- towncrier release notes start -->\n") == 1


@pytest.mark.parametrize("page", PAGES)
def test_each_link_of_the_pages_for_contributors_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target


def test_the_pages_for_contributors_name_only_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"))
        assert set(named) <= targets, page


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: pathlib.Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", folder, *author, *arguments], check=True)


def repository(
    folder: pathlib.Path, version: str, *, changelog: str = "", fragment: str = "README.md"
) -> None:
    """Make a repository that is just large enough to be refused."""
    (folder / ".ci").mkdir()
    for name in ("release", "public_names.py"):
        shutil.copy(ROOT / ".ci" / name, folder / ".ci")
    package = folder / "namedtasks"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"from namedtasks._map import TaskMap as TaskMap\n__version__ = {version!r}\n"
    )
    (package / "_map.py").write_text("class TaskMap:\n    def forget(self): ...\n")
    (folder / "CHANGELOG.md").write_text(changelog)
    (folder / "newsfragments").mkdir()
    (folder / "newsfragments" / fragment).touch()
    (folder / ".gitignore").write_text("__pycache__\n")
    git(folder, "init", "-q")
    commit(folder)


def commit(folder: pathlib.Path) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")


def release(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / ".ci" / "release", *arguments],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def refusal_of(folder: pathlib.Path, *arguments: str) -> str:
    done = release(folder, *arguments)
    assert done.returncode == 1
    return done.stderr


@needs_git
@pytest.mark.parametrize(
    ("version", "changelog", "fragment", "reason"),
    [
        ("0.1.0.dev0", "", "README.md", "0.1.0.dev0 is no version to publish: "),
        ("0.1.0", "## 0.1.1 (2026-12-01)", "README.md", "CHANGELOG.md has no entry for 0.1.0 "),
        ("0.1.0", "## 0.1.0 (unreleased)", "README.md", "CHANGELOG.md has no entry for 0.1.0 "),
        (
            "0.1.0",
            "## 0.1.0 (2026-12-01)\n## 0.1.0 (unreleased)",
            "README.md",
            "CHANGELOG.md has an unreleased entry: ",
        ),
        ("0.1.0", "## 0.1.0 (2026-12-01)", "a.doc.md", "there are news fragments that are in no "),
    ],
)
def test_a_release_is_refused(
    tmp_path: pathlib.Path, version: str, changelog: str, fragment: str, reason: str
) -> None:
    repository(tmp_path, version, changelog=changelog, fragment=fragment)
    assert f"no release: {reason}" in refusal_of(tmp_path)


@needs_git
def test_a_release_of_a_dirty_tree_is_refused(tmp_path: pathlib.Path) -> None:
    repository(tmp_path, "0.1.0", changelog="## 0.1.0 (2026-12-01)")
    (tmp_path / "scratch").touch()
    assert "no release: the tree is dirty" in refusal_of(tmp_path)


@needs_git
def test_the_first_release_has_no_earlier_api_to_compare_with(tmp_path: pathlib.Path) -> None:
    repository(tmp_path, "0.1.0")
    done = release(tmp_path, "api")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "== there is no earlier release to compare the public API with\n"


@needs_git
@pytest.mark.parametrize(
    ("last", "version", "allowed"),
    [
        ("0.1.0", "0.1.1", False),
        ("0.1.0", "0.2.0", True),
        ("0.9.0", "1.0.0", True),
        ("1.0.0", "1.1.0", False),
        ("1.1.0", "2.0.0", True),
    ],
)
def test_a_method_is_removed_only_by_a_version_that_may_do_so(
    tmp_path: pathlib.Path, last: str, version: str, allowed: bool
) -> None:
    """The class is defined in a private module, and public where it is imported."""
    pytest.importorskip("griffe")
    repository(tmp_path, version)
    git(tmp_path, "tag", f"v{last}")
    assert "none" in release(tmp_path, "api").stdout

    (tmp_path / "namedtasks" / "_map.py").write_text("class TaskMap: ...\n")
    commit(tmp_path)
    done = release(tmp_path, "api")
    assert "TaskMap.forget: Public object was removed" in done.stdout
    if allowed:
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{version} may have these changes" in done.stdout
    else:
        assert done.returncode == 1
        assert done.stderr == f"no release: {version} must not have these changes\n"
