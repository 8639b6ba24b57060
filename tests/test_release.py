"""What a release needs is in order at any time."""

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


def test_each_news_fragment_has_a_type_and_tells_something() -> None:
    """Else the changelog would leave it out without a word."""
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


def test_each_target_that_they_name_can_be_made() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"))
        assert set(named) <= targets, page


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def repository(folder: pathlib.Path, version: str, *, changelog: str, fragment: str) -> None:
    """Make one that is just large enough to be refused."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "release", folder / ".ci")
    (folder / "namedtasks").mkdir()
    (folder / "namedtasks" / "__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    (folder / "newsfragments").mkdir()
    (folder / "newsfragments" / fragment).touch()
    (folder / ".gitignore").write_text("__pycache__\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "all")):
        subprocess.run(["git", "-C", folder, *command], check=True)


def release(folder: pathlib.Path) -> str:
    """What `make release` says when it refuses."""
    done = subprocess.run(
        [folder / ".ci" / "release"],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


@needs_git
@pytest.mark.parametrize(
    ("version", "changelog", "fragment", "reason"),
    [
        ("0.1.0.dev0", "", "README.md", "0.1.0.dev0 is no version to publish: "),
        ("0.1.0", "## 0.1.1 (today)", "README.md", "CHANGELOG.md has no entry for 0.1.0: "),
        ("0.1.0", "## 0.1.0 (today)", "a.doc.md", "there are news fragments that are in no entry"),
    ],
)
def test_a_release_is_refused(
    tmp_path: pathlib.Path, version: str, changelog: str, fragment: str, reason: str
) -> None:
    repository(tmp_path, version, changelog=changelog, fragment=fragment)
    assert f"no release: {reason}" in release(tmp_path)


@needs_git
def test_a_release_of_a_dirty_tree_is_refused(tmp_path: pathlib.Path) -> None:
    repository(tmp_path, "0.1.0", changelog="## 0.1.0 (today)", fragment="README.md")
    (tmp_path / "scratch").touch()
    assert "no release: the tree is dirty" in release(tmp_path)
