"""What the backends promise, and how one of them is chosen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
from volume_controller import commands, content
from volume_controller.backend import Backend, BackendError, Choice, VolumeState, choose
from volume_controller.config import InputError, Volume
from volume_controller.directory import DirectoryBackend
from volume_controller.layout import Layout
from volume_controller.loop import LoopBackend, block_size, unescaped

VOLUME = Volume("v", 16 * 2**20)


def in_folder(work: Path) -> DirectoryBackend:
    return DirectoryBackend(Layout(work), {"v": VOLUME})


class FakeKind:
    """A kind of backend that works, or says why not."""

    def __init__(self, obstacle: str | None) -> None:
        self._obstacle = obstacle

    def __call__(self, layout: Layout, volumes: Mapping[str, Volume]) -> Backend:
        return DirectoryBackend(layout, volumes)

    async def obstacle(self) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._obstacle


WORKS = FakeKind(None)
BROKEN = FakeKind("needs root")


@pytest.mark.trio
async def test_the_first_backend_that_works_is_chosen() -> None:
    """With the reason why no better one was."""
    assert Choice(WORKS, "loop", "because it works here") == await choose(
        {"loop": WORKS, "dir": BROKEN}, None
    )
    assert Choice(WORKS, "dir", "because loop needs root") == await choose(
        {"loop": BROKEN, "dir": WORKS}, None
    )


@pytest.mark.trio
async def test_there_may_be_no_backend_at_all() -> None:
    """The message says what the last one lacked."""
    with pytest.raises(InputError, match=r"^no backend is left, because loop needs root$"):
        await choose({"loop": BROKEN}, None)


@pytest.mark.trio
async def test_a_backend_that_is_asked_for_is_chosen() -> None:
    """Also if a better one works."""
    kinds = {"loop": WORKS, "dir": WORKS}
    assert Choice(WORKS, "dir", "as asked for") == await choose(kinds, "dir")


@pytest.mark.trio
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nfs", "unknown backend 'nfs': choose from loop, dir"),
        ("loop", "backend loop cannot be used: it needs root; mend that, or use --backend dir"),
    ],
)
async def test_a_backend_that_cannot_be_had_is_bad_input(wanted: str, message: str) -> None:
    """Nothing else is used in its place."""
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        await choose({"loop": BROKEN, "dir": WORKS}, wanted)


@pytest.mark.trio
async def test_a_volume_of_files_goes_up_and_down(tmp_path: Path) -> None:
    """What a look at the world says after each operation."""
    backend = in_folder(tmp_path)
    states = [backend.observe()["v"]]
    for operation in (
        partial(backend.provision, VOLUME),
        partial(backend.attach, VOLUME, "n1"),
        partial(backend.format, VOLUME),
        partial(backend.mount, VOLUME, "n1"),
        partial(backend.write, VOLUME, "n1"),
        partial(backend.unmount, VOLUME, "n1"),
        partial(backend.detach, VOLUME, "n1"),
        partial(backend.check, VOLUME),
    ):
        await operation()
        states.append(backend.observe()["v"])
    attached = partial(VolumeState, provisioned=True, attached_to="n1", blank=False)
    assert [
        VolumeState(blank=False),
        VolumeState(provisioned=True, blank=True),
        attached(blank=True),
        attached(),
        attached(mounted_on="n1"),
        attached(mounted_on="n1", written=True),
        attached(),
        VolumeState(provisioned=True, blank=False),
        VolumeState(provisioned=True, blank=False, checked=True),
    ] == states
    assert await backend.leftovers() == []


@pytest.mark.trio
async def test_a_damaged_volume_mounts_only_after_the_repair(tmp_path: Path) -> None:
    """It is not blank: nobody formats it over the damage."""
    backend = in_folder(tmp_path)
    await backend.damage(VOLUME)
    assert not backend.observe()["v"].blank
    message = f"bad superblock at byte 0 of {tmp_path / 'images' / 'v.img'}"
    with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
        await backend.mount(VOLUME, "n1")
    await backend.repair(VOLUME)
    await backend.mount(VOLUME, "n1")


@pytest.mark.trio
async def test_a_volume_that_is_not_blank_is_never_formatted(tmp_path: Path) -> None:
    """One byte within the first 64 KiB is enough, whoever wrote it."""
    backend = in_folder(tmp_path)
    await backend.provision(VOLUME)
    with Layout(tmp_path).image(VOLUME).open("r+b") as file:
        file.seek(64 * 1024 - 1)
        file.write(b"x")
    with pytest.raises(BackendError, match=r"^volume 'v' is not blank: it must not be formatted$"):
        await backend.format(VOLUME)


@pytest.mark.trio
async def test_a_volume_is_attached_to_one_node_at_a_time(tmp_path: Path) -> None:
    """The lock file says which."""
    backend = in_folder(tmp_path)
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    with pytest.raises(BackendError, match=r"^'v' is attached to 'n1' already$"):
        await backend.attach(VOLUME, "n2")


@pytest.mark.trio
async def test_content_that_changed_fails_the_check(tmp_path: Path) -> None:
    """The checksum was written down when the content was read back."""
    backend = in_folder(tmp_path)
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    await backend.write(VOLUME, "n1")
    await backend.unmount(VOLUME, "n1")
    file = tmp_path / "files" / "v" / content.CONTENT
    file.write_bytes(b"something else")
    message = f"{file} does not hold what was written into it"
    with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
        await backend.check(VOLUME)


@pytest.mark.trio
async def test_clean_up_undoes_mounts_and_attachments(tmp_path: Path) -> None:
    """It finds them by the work folder: nobody has to remember them."""
    backend = in_folder(tmp_path)
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    assert [
        f"mount on {tmp_path / 'nodes' / 'n1' / 'v'}",
        f"attachment lock {tmp_path / 'attachments' / 'v'}",
    ] == await backend.leftovers()
    await backend.clean_up()
    assert await backend.leftovers() == []


@pytest.mark.trio
async def test_a_command_that_fails_tells_what_it_said_last() -> None:
    """With the whole command and its exit code."""
    message = "'sh -c echo one; echo two >&2; exit 3' ended with code 3: two"
    with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
        await commands.run("sh", "-c", "echo one; echo two >&2; exit 3")


@pytest.mark.trio
async def test_a_command_that_is_not_installed_is_an_error_like_any_other() -> None:
    """The operation fails, and its name waits."""
    with pytest.raises(BackendError, match=r"^'no-such-command-anywhere' is not installed$"):
        await commands.run("no-such-command-anywhere")


@pytest.mark.trio
async def test_a_cancelled_command_leaves_no_process_behind(tmp_path: Path) -> None:
    """It is over before the call is."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    script = f"echo $$ > {fifo}; sleep 600; true"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commands.run, "sh", "-c", script)
        pid = int(await trio.to_thread.run_sync(fifo.read_text))
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_backup_superblock_is_where_the_block_size_says() -> None:
    """Small volumes have small blocks, so that they have a second group of blocks at all."""
    assert block_size(Volume("v", 512 * 2**20 - 1)) == 1024
    assert block_size(Volume("v", 512 * 2**20)) == 4096


def test_paths_in_proc_are_unescaped() -> None:
    """As proc(5) says."""
    assert Path("/a b\\c") == unescaped(rb"/a\040b\134c")


@pytest.mark.root
@pytest.mark.trio
@pytest.mark.parametrize("size", [16 * 2**20, 128 * 2**20, 512 * 2**20], ids=str)
async def test_a_real_file_system_is_repaired_from_its_backup(
    loop_works: None, tmp_path: Path, size: int
) -> None:
    """With blocks of 1 KiB and of 4 KiB."""
    volume = Volume("v", size)
    backend = LoopBackend(Layout(tmp_path), {"v": volume})
    await backend.damage(volume)
    await backend.attach(volume, "n1")
    try:
        with pytest.raises(BackendError, match=r"bad superblock"):
            await backend.mount(volume, "n1")
        await backend.repair(volume)
        await backend.mount(volume, "n1")
        assert len(await backend.leftovers()) == 2
    finally:
        await backend.clean_up()
    assert await backend.leftovers() == []
    await backend.check(volume)


@pytest.mark.root
@pytest.mark.trio
async def test_a_real_volume_that_is_not_blank_is_never_formatted(
    loop_works: None, tmp_path: Path
) -> None:
    """Even if it cannot be mounted."""
    backend = LoopBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.damage(VOLUME)
    await backend.attach(VOLUME, "n1")
    try:
        with pytest.raises(
            BackendError, match=r"^volume 'v' is not blank: it must not be formatted$"
        ):
            await backend.format(VOLUME)
    finally:
        await backend.clean_up()
