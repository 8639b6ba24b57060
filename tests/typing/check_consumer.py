"""Checks the types of the consumer as its own authors would, and that it runs.

`python check_consumer.py FOLDER PYTHON`: a copy of the project, and the Python of
an environment that has the wheels of namedtasks and of the project, and nothing
else. The checkers are those of the Python that runs this.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

MARK = "# wrong"

Place = tuple[str, int]
"""A file's name, and a line of it."""


Reports = dict[Place, str]
"""What a checker says, and where."""


def main(folder: pathlib.Path, python: str) -> None:
    """Check all, and say what was found.

    Raises:
        SystemExit: something is reported that is right, or accepted that is wrong.
    """
    marked = {place for path in (folder / "wrong").glob("*.py") for place in marks(path)}
    for checker in (mypy, pyright):
        of_right = checker(folder, python, "lampkeeper")
        of_wrong = checker(folder, python, "wrong")
        unexpected = of_right | {at: said for at, said in of_wrong.items() if at not in marked}
        complaints = [f"{name}:{line}: {said}" for (name, line), said in sorted(unexpected.items())]
        complaints += [f"{name}:{line}: accepted" for name, line in sorted(marked - set(of_wrong))]
        if complaints:
            raise SystemExit("\n".join([f"{checker.__name__} is of another mind:", *complaints]))
        print(f"{checker.__name__}: the library is right, {len(marked)} wrong lines are reported")
    print(run([python, "-I", "-W", "error", "-m", "lampkeeper"], folder), end="")


def marks(path: pathlib.Path) -> list[Place]:
    """The lines of *path* that must be reported."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(path.name, number) for number, line in enumerate(lines, 1) if line.endswith(MARK)]


def mypy(folder: pathlib.Path, python: str, package: str) -> Reports:
    """What mypy reports."""
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    printed = run([*command, "--output=json", package], folder, allowed=(0, 1))
    reports = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {
        (pathlib.Path(one["file"]).name, one["line"]): one["message"]
        for one in reports
        if one["severity"] == "error"
    }


def pyright(folder: pathlib.Path, python: str, package: str) -> Reports:
    """What pyright reports."""
    settings = folder / f"{package}.json"
    settings.write_text(json.dumps({"include": [package], "typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--project", str(settings)]
    printed = run([*command, "--outputjson", "--pythonpath", python], folder, allowed=(0, 1))
    return {
        (pathlib.Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(printed)["generalDiagnostics"]
        if one["severity"] == "error"
    }


def run(command: Sequence[str], folder: pathlib.Path, *, allowed: Sequence[int] = (0,)) -> str:
    """Run *command* in *folder*, and give what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(
            f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
