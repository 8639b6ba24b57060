"""The work folder: made, locked against a second controller, and removed if it is temporary."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from volume_controller import commands
from volume_controller.config import InputError

_LOCK = "lock"
_BACKEND = "backend"


@attrs.define(eq=False)
class WorkFolder:
    """A folder that only this process uses."""

    path: Path
    """Its path, without links and dots, as the kernel shows it."""
    remove: bool
    """True if it should be removed at the end."""

    @property
    def backend(self) -> str | None:
        """The backend of the volumes in it, if there are any."""
        try:
            return (self.path / _BACKEND).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def choose_backend(self, wanted: str | None) -> str | None:
        """Return the backend to use: that of the folder, or else the *wanted* one.

        Raises:
            InputError: the two differ.
        """
        if wanted is not None and self.backend not in (None, wanted):
            raise InputError(
                f"the work folder {self.path} holds volumes of backend {self.backend}, not "
                f"{wanted}: use that one, or choose another folder with --work"
            )
        return self.backend or wanted

    def keep_backend(self, name: str) -> None:
        """Write down the backend of its volumes."""
        (self.path / _BACKEND).write_text(name + "\n", encoding="utf-8")


@contextmanager
def open_work_folder(folder: Path | None) -> Generator[WorkFolder]:
    """Make *folder*, or a temporary one, and lock it as long as the block runs.

    Processes that start inside the block are marked with the folder.

    Raises:
        InputError: it cannot be written to, or another controller uses it.
    """
    is_new = folder is None or not folder.exists()
    path = _make(folder)
    with _locked(path), commands.marked(path):
        work = WorkFolder(path, remove=folder is None)
        try:
            yield work
        except InputError:
            work.remove = is_new
            raise
        finally:
            if work.remove:
                shutil.rmtree(path)


@contextmanager
def open_used_work_folder(folder: Path) -> Generator[WorkFolder]:
    """Lock a folder that a controller has used.

    Raises:
        InputError: no controller has used it, or one still uses it.
    """
    if not (folder / _LOCK).is_file():
        raise InputError(f"{folder} is no work folder: name one that a controller has used")
    path = folder.resolve()
    with _locked(path), commands.marked(path):
        yield WorkFolder(path, remove=False)


def _make(folder: Path | None) -> Path:
    try:
        if folder is None:
            return Path(tempfile.mkdtemp(prefix="volume_controller-")).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        raise _cannot_write(folder, error) from error


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    try:
        file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        _lock(file, folder)
        yield
    finally:
        os.close(file)


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # the kernel releases it when this process ends
    except BlockingIOError as error:
        raise InputError(
            f"the work folder {folder} is in use by another controller: "
            "wait for its end, or choose another with --work"
        ) from error


def _cannot_write(folder: Path | None, error: OSError) -> InputError:
    where = folder or "for temporary files"
    return InputError(
        f"cannot write to the work folder {where}: {error.strerror}; choose another with --work"
    )
