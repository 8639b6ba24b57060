"""The command line: ``python -m volume_controller --help``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import attrs
import trio

from volume_controller import config
from volume_controller.backend import BackendKind, Choice, choose
from volume_controller.directory import DirectoryBackend
from volume_controller.journal import Journal
from volume_controller.layout import Layout
from volume_controller.loop import LoopBackend
from volume_controller.report import Outcome, Report
from volume_controller.session import Session

KINDS: Mapping[str, BackendKind] = {"loop": LoopBackend, "dir": DirectoryBackend}
"""The backends, best first."""

BAD_INPUT = 2
INTERRUPTED = 130


@attrs.frozen
class Options:
    """The command line, checked as far as it goes by itself."""

    file: Path
    backend: str | None
    work: Path | None
    timeout: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the controller, and give the exit code.

    Returns:
        0 if everything desired was reached and nothing was left behind, 1 if
        not, 2 if the input is bad, 128 plus its number for a signal.
    """
    try:
        options = parse(arguments)
        return trio.run(_control, config.load(options.file), options)
    except config.InputError as error:
        print(f"volume_controller: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED  # before there was anything to clean up


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line.

    Raises:
        InputError: it cannot be understood.
    """
    parser = _Parser(
        prog="volume_controller",
        description="Brings volumes to where a TOML file wants them, and away again.",
    )
    default = Path(__file__).with_name("volumes.toml")
    parser.add_argument("file", nargs="?", type=Path, default=default, help="what is desired")
    parser.add_argument("--backend", metavar="|".join(KINDS), help="default: the best that works")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: a temporary folder")
    parser.add_argument("--timeout", default="60", metavar="SECONDS", help="default: 60")
    found = parser.parse_args(arguments)
    return Options(found.file, found.backend, found.work, _seconds(found.timeout))


async def _control(desired: config.Config, options: Options) -> int:
    choice = await choose(KINDS, options.backend)
    work = _make_work_folder(options.work)
    outcome = await _run(desired, choice, work, options)
    if options.work is None and not outcome.left:
        await trio.to_thread.run_sync(shutil.rmtree, work)
    return outcome.exit_code


async def _run(desired: config.Config, choice: Choice, work: Path, options: Options) -> Outcome:
    report = Report()
    report.say(f"backend: {choice.name}, {choice.reason}")
    report.say(f"work folder: {work}")
    backend = choice.kind(Layout(work), desired.volumes)
    journal = Journal(work / "journal")
    session = Session(desired, backend, journal, report, options.timeout)
    outcome = await session.run()
    report.summarize(outcome)
    return outcome


def _make_work_folder(folder: Path | None) -> Path:
    try:
        if folder is None:
            return Path(tempfile.mkdtemp(prefix="volume_controller-")).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        where = folder or "for temporary files"
        raise config.InputError(
            f"cannot write to the work folder {where}: {error.strerror}; choose another with --work"
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise config.InputError(f"{message}; see --help")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise config.InputError(f"--timeout must be a number of seconds above 0, not {text!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
