"""Volumes made of plain files and folders, which work everywhere without privileges.

In the work folder:

    images/db-1.img            the volume: a superblock, and a backup of it
    images/db-1.img.checked    exists if it was checked since it was last attached
    files/db-1/                the content of its file system, while it is not mounted
    attachments/db-1           a lock: the node that it is attached to (locks.py)
    nodes/node-1/db-1/         the content of its file system, while it is mounted

A volume has one folder for its files, and mounting moves that folder, so no volume can be mounted
twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVarTuple

import attrs
import trio

from volume_controller import cleanup, content
from volume_controller.backend import BLANK_BYTES, BackendError, VolumeState
from volume_controller.config import Volume
from volume_controller.layout import Layout
from volume_controller.locks import Locks

Args = TypeVarTuple("Args")

_MAGIC = b"namedtasks volume 1\n"
_SUPERBLOCK = 0
_BACKUP = BLANK_BYTES
"""The offsets of the superblock and its backup, in bytes."""


@attrs.frozen
class DirectoryBackend:
    """Volumes in a directory."""

    layout: Layout
    volumes: Mapping[str, Volume]

    @staticmethod
    async def obstacle(layout: Layout) -> str | None:  # noqa: ARG004 - there is nothing to try
        """Return None: this backend works everywhere."""
        await trio.lowlevel.checkpoint()
        return None

    def observe(self) -> Mapping[str, VolumeState]:
        """Return the state of all volumes."""
        attached = self._locks.holders()
        mounted = {path.name: path.parent.name for path in self._mounts()}
        return {
            name: self.layout.state(volume, attached.get(name), mounted.get(name))
            for name, volume in self.volumes.items()
        }

    async def provision(self, volume: Volume) -> None:
        """Make a blank volume."""
        await _in_thread(self.layout.provision, volume)

    async def attach(self, volume: Volume, node: str) -> None:
        """Take the volume's lock for *node*."""
        await _in_thread(self._attach, volume, node)

    async def format(self, volume: Volume) -> None:
        """Write the superblocks of a blank volume; refuse one that is not blank."""
        await _in_thread(self._format, volume)

    async def mount(self, volume: Volume, node: str) -> None:
        """Move the volume's files below the folder of *node*."""
        await _in_thread(self._mount, volume, node)

    async def write(self, volume: Volume, node: str) -> None:
        """Write a file of random content, and read it back."""
        target, size = self.layout.target(volume, node), content.size_for(volume)
        await _in_thread(content.write_and_verify, target, size)

    async def unmount(self, volume: Volume, node: str) -> None:
        """Move the volume's files back; refuse while a process has locked them."""
        await _in_thread(self._unmount, volume, node)

    async def detach(self, volume: Volume, node: str) -> None:  # noqa: ARG002 - there is one lock
        """Release the lock."""
        await _in_thread(self._locks.give_back, volume.name)

    async def check(self, volume: Volume) -> None:
        """Check the superblocks and the content."""
        await _in_thread(self._check, volume)

    async def delete(self, volume: Volume) -> None:
        """Remove the image and the files."""
        await _in_thread(self._delete, volume)

    async def damage(self, volume: Volume) -> None:
        """Give a detached volume a file system, and destroy its superblock."""
        await _in_thread(self._damage, volume)

    async def repair(self, volume: Volume) -> None:
        """Restore the superblock from its backup."""
        await _in_thread(self._repair, volume)

    async def leftovers(self) -> list[str]:
        """Return what is attached, mounted or running for the work folder, one line each."""
        await trio.lowlevel.checkpoint()
        mounts = [f"mount on {target}" for target in self._mounts()]
        return mounts + self._locks.leftovers() + cleanup.leftovers(self.layout.work)

    async def clean_up(self) -> None:
        """End, unmount and detach everything of the work folder, as far as possible."""
        await cleanup.clean_up(self.layout.work)
        for target in self._mounts():
            with suppress(OSError):
                await _in_thread(_move, target, self.layout.work / "files" / target.name)
        await _in_thread(self._locks.clean_up)

    def _attach(self, volume: Volume, node: str) -> None:
        self.layout.stamp(volume).unlink(missing_ok=True)
        self._locks.take(volume.name, node)

    def _format(self, volume: Volume) -> None:
        self.layout.check_blank(volume)
        image = self.layout.image(volume)
        self._files(volume).mkdir(parents=True, exist_ok=True)
        for offset in (_BACKUP, _SUPERBLOCK):  # the volume counts as blank until the last write
            _write_at(image, offset, _superblock(volume))

    def _mount(self, volume: Volume, node: str) -> None:
        self._check_superblock(volume, _SUPERBLOCK)
        _move(self._files(volume), self.layout.target(volume, node))

    def _unmount(self, volume: Volume, node: str) -> None:
        target = self.layout.target(volume, node)
        folder = os.open(target, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _move(target, self._files(volume))
        except BlockingIOError as error:
            raise BackendError(f"{target} is busy: a process has locked it") from error
        finally:
            os.close(folder)

    def _delete(self, volume: Volume) -> None:
        self.layout.delete(volume)
        shutil.rmtree(self._files(volume), ignore_errors=True)

    def _check(self, volume: Volume) -> None:
        self._check_superblock(volume, _SUPERBLOCK)
        self._check_superblock(volume, _BACKUP)
        if content.is_written(self._files(volume)):
            content.verify(self._files(volume))
        self.layout.stamp(volume).touch()

    def _damage(self, volume: Volume) -> None:
        if not self.layout.image(volume).exists():
            self.layout.provision(volume)
        if content.is_blank(self.layout.image(volume)):
            self._format(volume)
        _write_at(self.layout.image(volume), _SUPERBLOCK, b"garbage!" * 8)

    def _repair(self, volume: Volume) -> None:
        self._check_superblock(volume, _BACKUP)
        _write_at(self.layout.image(volume), _SUPERBLOCK, _superblock(volume))

    def _check_superblock(self, volume: Volume, offset: int) -> None:
        expected = _superblock(volume)
        with self.layout.image(volume).open("rb") as file:
            file.seek(offset)
            found = file.read(len(expected))
        if found != expected:
            raise BackendError(f"bad superblock at byte {offset} of {self.layout.image(volume)}")

    def _mounts(self) -> list[Path]:
        return list(self.layout.nodes.glob("*/*"))

    @property
    def _locks(self) -> Locks:
        return Locks(self.layout.attachments)

    def _files(self, volume: Volume) -> Path:
        return self.layout.work / "files" / volume.name


async def _in_thread(fn: Callable[[*Args], object], *args: *Args) -> None:
    await trio.to_thread.run_sync(fn, *args)


def _superblock(volume: Volume) -> bytes:
    facts = _MAGIC + f"{volume.name} {volume.size}\n".encode()
    return facts + hashlib.sha256(facts).hexdigest().encode() + b"\n"


def _write_at(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
