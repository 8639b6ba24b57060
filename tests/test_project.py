"""The project files agree with each other: dependency groups, locks, targets, Pythons."""

import ast
import pathlib
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS: dict[str, list[str | dict[str, str]]] = PYPROJECT["dependency-groups"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
LOCKS = sorted((ROOT / ".ci").glob("requirements*.txt"))


def packages_of(group: str) -> set[str]:
    """Return the packages that *group* names, and those of the groups that it includes."""
    found = set[str]()
    for item in GROUPS[group]:
        if isinstance(item, dict):
            found |= packages_of(item["include-group"])
        else:
            found.add(re.split(r"[^\w.-]", item)[0])
    return found


def constants_of(path: pathlib.Path) -> dict[str, Any]:
    """Return the literals that a module assigns. This does not import it."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.List)
    }


NOX = constants_of(ROOT / "noxfile.py")


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_has_a_lock_with_its_packages(group: str) -> None:
    """If this fails, run ``make lock``."""
    lock = (ROOT / ".ci" / f"requirements-{group}.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert packages_of(group) | {"attrs", "trio"} <= locked


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_a_hash_for_each_package_and_no_address(lock: pathlib.Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    for package in text.replace("\\\n", "").splitlines():
        assert re.fullmatch(r"[\w.-]+==[^ ]+( ;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+", package)


def test_each_lock_belongs_to_a_group() -> None:
    assert {lock.name for lock in LOCKS} == {f"requirements-{group}.txt" for group in GROUPS}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("target", "groups"),
    [
        ("demo", ["demo"]),
        ("demo-asyncio", ["demo"]),
        ("demo-threads", ["demo"]),
        ("test", ["test"]),
        ("coverage", ["test"]),
        ("check", ["test", "dev"]),
        ("docs", ["docs"]),
        ("release", ["release"]),
    ],
)
def test_a_target_installs_only_what_it_needs(
    tmp_path: pathlib.Path, target: str, groups: list[str]
) -> None:
    """The demos are the first that a newcomer runs: they need no tools."""
    command = ["make", "--dry-run", f"VENV={tmp_path}/venv", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"\.ci/environment \S+ (\w+)", done.stdout) == groups


def test_the_classifiers_name_the_pythons_that_nox_and_the_workflow_use() -> None:
    classifiers = "\n".join(PYPROJECT["project"]["classifiers"])
    pythons = re.findall(r"Python :: (3\.\d+)", classifiers)
    assert pythons == [python for python in NOX["PYTHONS"] if not python.endswith("t")]
    for python in NOX["PYTHONS"]:
        assert f'"{python}"' in WORKFLOW


def test_nox_uses_the_oldest_versions_that_the_project_allows() -> None:
    oldest = [str(pin).removesuffix(".0").replace("==", ">=") for pin in NOX["OLDEST"]]
    assert sorted(oldest) == sorted(PYPROJECT["project"]["dependencies"])
    oldest = [str(pin).removesuffix(".0").replace("==", ">=") for pin in NOX["OLDEST_OF_EXTRAS"]]
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    assert sorted(oldest) == sorted(package for packages in extras for package in packages)


def test_the_workflow_runs_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = re.findall(r"target: \[(.+)\]", WORKFLOW)
    assert named
    assert set(", ".join(named).split(", ")) <= targets
