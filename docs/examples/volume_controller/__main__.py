"""The command line: ``python -m volume_controller --help``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NoReturn

import attrs
import trio

from volume_controller import config, lines
from volume_controller.backend import BackendKind
from volume_controller.directory import DirectoryBackend
from volume_controller.fuse import FuseBackend
from volume_controller.loop import LoopBackend
from volume_controller.report import Display, Report
from volume_controller.session import Session, clean
from volume_controller.signals import hold_signals
from volume_controller.status import Address, status_page
from volume_controller.stopping import Stop, stop_on_signals
from volume_controller.workfolder import open_used_work_folder, open_work_folder

KINDS: Mapping[str, BackendKind] = {
    "loop": LoopBackend,
    "fuse": FuseBackend,
    "dir": DirectoryBackend,
}
"""The backends, best first."""

BAD_INPUT = 2


@attrs.frozen(kw_only=True)
class Options:
    """The checked command line."""

    file: Path
    backend: str | None
    work: Path | None
    clean: Path | None
    volumes: int | None
    timeout: float
    output: Literal["table", "plain", "json"]
    status: Address | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the controller, and return the exit code.

    Returns:
        0 if everything was reached and nothing was left behind, 1 if not, 2 if the input is bad,
        128 plus the number of a signal.
    """
    hold_signals()
    try:
        options = parse(arguments)
        return trio.run(_control, config.load(options.file, options.volumes), options)
    except config.InputError as error:
        return _bad_input(error)


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line.

    Raises:
        InputError: it is not valid.
    """
    parser = _Parser(
        prog="volume_controller",
        description="Brings volumes to where a TOML file wants them, and away again.",
    )
    default = Path(__file__).with_name("volumes.toml")
    parser.add_argument("file", nargs="?", type=Path, default=default, help="the desired states")
    parser.add_argument("--backend", metavar="|".join(KINDS), help="default: the best that works")
    parser.add_argument("--work", type=Path, metavar="DIR", help="default: a temporary folder")
    parser.add_argument("--volumes", metavar="N", help="add made-up volumes until there are N")
    parser.add_argument("--timeout", default="120", metavar="SECONDS", help="default: 120")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--plain", action="store_true", help="print lines of text, even on a terminal"
    )
    output.add_argument("--json", action="store_true", help="print a JSON object per line")
    parser.add_argument(
        "--status", metavar="HOST:PORT", help="serve a status page, for example at 127.0.0.1:8080"
    )
    parser.add_argument(
        "--clean", type=Path, metavar="DIR", help="only clean up what was left in this work folder"
    )
    found = parser.parse_args(arguments)
    return Options(
        file=found.file,
        backend=_known(found.backend),
        work=found.work,
        clean=found.clean,
        volumes=None if found.volumes is None else _count(found.volumes),
        timeout=_seconds(found.timeout),
        output="plain" if found.plain else "json" if found.json else "table",
        status=None if found.status is None else _address(found.status),
    )


async def _control(desired: config.Config, options: Options) -> int:
    report = Report(_display(options))

    def tell(number: signal.Signals) -> None:
        report.tell("stopping", f"stopping because of {number.name}", signal=number.name)

    async with stop_on_signals(tell) as stop:
        try:
            if options.clean is not None:
                return await _clean(options.clean, stop)
            return await _run(desired, options, report, stop)
        except config.InputError as error:
            return _bad_input(error)


async def _run(desired: config.Config, options: Options, report: Report, stop: Stop) -> int:
    with open_work_folder(options.work) as work:
        async with status_page(options.status, report) as instruments:
            session = Session(
                desired, KINDS, options.backend, work, report, stop, options.timeout, instruments
            )
            outcome = await session.run()
        report.summarize(outcome)
    return outcome.exit_code


async def _clean(folder: Path, stop: Stop) -> int:
    with open_used_work_folder(folder) as work:
        left = await clean(work, KINDS)
    for leftover in left:
        lines.write(f"left behind: {leftover}")
    if stop.signal is not None:
        return 128 + stop.signal
    return 1 if left else 0


def _display(options: Options) -> Display:
    if options.output == "json":
        return lines.JsonLines()
    if options.output == "table" and sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - rich is optional

            from volume_controller.table import LiveTable  # noqa: PLC0415
        except ImportError:
            return lines.PlainLines()
        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveTable(console)
    return lines.PlainLines()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise config.InputError(f"{message}; see --help")


def _bad_input(error: config.InputError) -> int:
    print(f"volume_controller: {error}", file=sys.stderr)
    return BAD_INPUT


def _known(backend: str | None) -> str | None:
    if backend is not None and backend not in KINDS:
        raise config.InputError(f"unknown backend {backend!r}: choose from {', '.join(KINDS)}")
    return backend


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= config.MOST_VOLUMES:
        raise config.InputError(
            f"--volumes must be a number from 1 to {config.MOST_VOLUMES}, not {text!r}"
        )
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise config.InputError(f"--timeout must be a number of seconds above 0, not {text!r}")
    return seconds


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and len(port) < 6 and int(port) < 2**16):
        raise config.InputError(
            f"--status must be a host and a port such as 127.0.0.1:8080, not {text!r}"
        )
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


if __name__ == "__main__":
    sys.exit(main())
