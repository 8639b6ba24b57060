"""What the backends promise, and how one of them is chosen."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from volume_controller import cleanup, commands, content, kernel
from volume_controller.backend import Backend, BackendError, Choice, VolumeState, choose
from volume_controller.config import InputError, Volume
from volume_controller.controller import next_step
from volume_controller.directory import DirectoryBackend
from volume_controller.ext4 import block_size
from volume_controller.fuse import FuseBackend
from volume_controller.kernel import unescaped
from volume_controller.layout import Layout
from volume_controller.locks import Locks
from volume_controller.loop import LoopBackend
from volume_controller.steps import Step

VOLUME = Volume("v", 16 * 2**20)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path) -> Generator[None]:
    """Undo what a failed test has left attached or mounted."""
    yield
    if cleanup.leftovers(tmp_path):
        trio.run(cleanup.clean_up, tmp_path)


def in_folder(work: Path) -> DirectoryBackend:
    return DirectoryBackend(Layout(work), {"v": VOLUME})


class FakeKind:
    """A kind of backend that works, or says why not."""

    def __init__(self, obstacle: str | None) -> None:
        self._obstacle = obstacle

    def __call__(self, layout: Layout, volumes: Mapping[str, Volume]) -> Backend:
        return DirectoryBackend(layout, volumes)

    async def obstacle(self, layout: Layout) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._obstacle


WORKS = FakeKind(None)
BROKEN = FakeKind("needs root")
ANYWHERE = Layout(Path("nowhere"))


@pytest.mark.trio
async def test_the_first_backend_that_works_is_chosen() -> None:
    """With the reason why no better one was."""
    assert Choice(WORKS, "loop", "because it works here") == await choose(
        {"loop": WORKS, "dir": BROKEN}, None, ANYWHERE
    )
    assert Choice(WORKS, "dir", "because loop needs root") == await choose(
        {"loop": BROKEN, "dir": WORKS}, None, ANYWHERE
    )


@pytest.mark.trio
async def test_there_may_be_no_backend_at_all() -> None:
    """The message says what the last one lacked."""
    with pytest.raises(InputError, match=r"^no backend works here, because loop needs root$"):
        await choose({"loop": BROKEN}, None, ANYWHERE)


@pytest.mark.trio
async def test_a_backend_that_is_asked_for_is_chosen() -> None:
    """Also if a better one works."""
    kinds = {"loop": WORKS, "dir": WORKS}
    assert Choice(WORKS, "dir", "as asked for") == await choose(kinds, "dir", ANYWHERE)


@pytest.mark.trio
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nfs", "unknown backend 'nfs': choose from loop, dir"),
        ("loop", "backend loop cannot be used: it needs root; fix that, or use --backend dir"),
    ],
)
async def test_a_backend_that_cannot_be_had_is_bad_input(wanted: str, message: str) -> None:
    """Nothing else is used in its place."""
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        await choose({"loop": BROKEN, "dir": WORKS}, wanted, ANYWHERE)


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
        partial(backend.delete, VOLUME),
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
        VolumeState(blank=False),
    ] == states
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("v")]
    assert await backend.leftovers() == []


@pytest.mark.trio
async def test_a_fuse_volume_goes_up_and_down(fuse_works: None, tmp_path: Path) -> None:
    """The fuse2fs is over when the unmount is, and the image holds what was written."""
    backend = FuseBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.damage(VOLUME)
    await backend.attach(VOLUME, "n1")
    with pytest.raises(BackendError, match=r"e2fsck"):
        await backend.mount(VOLUME, "n1")
    await backend.repair(VOLUME)
    await backend.mount(VOLUME, "n1")
    assert len(kernel.servers_below(tmp_path)) == 1
    await backend.write(VOLUME, "n1")
    await backend.unmount(VOLUME, "n1")
    assert kernel.servers_below(tmp_path) == {}
    await backend.mount(VOLUME, "n1")
    assert backend.observe()["v"].written
    await backend.unmount(VOLUME, "n1")
    await backend.detach(VOLUME, "n1")
    await backend.check(VOLUME)
    assert await backend.leftovers() == []


@pytest.mark.trio
async def test_a_fuse_volume_that_nobody_serves_any_more_is_cleaned_up(
    fuse_works: None, tmp_path: Path
) -> None:
    """Its mount point cannot even be looked at."""
    backend = FuseBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    (server,) = kernel.servers_below(tmp_path)
    os.kill(server, signal.SIGKILL)
    await cleanup.wait_until_over([server])
    target = backend.layout.target(VOLUME, "n1")
    assert not os.path.ismount(target)
    assert not kernel.is_served(target)
    state = backend.observe()["v"]
    assert (state.mounted_on, state.written) == ("n1", False)
    for again in (backend.write, backend.mount):
        with pytest.raises((OSError, BackendError)):
            await again(VOLUME, "n1")
    await backend.unmount(VOLUME, "n1")
    await backend.mount(VOLUME, "n1")
    (server,) = kernel.servers_below(tmp_path)
    os.kill(server, signal.SIGKILL)
    await cleanup.wait_until_over([server])
    assert len(await backend.leftovers()) == 2
    await backend.clean_up()
    assert await backend.leftovers() == []


@pytest.mark.trio
async def test_a_mount_that_fuse2fs_was_refused_fails_with_its_reason(
    fuse_works: None, tmp_path: Path
) -> None:
    """Its exit code is 0. Once the reason has gone, the next try succeeds."""
    backend = FuseBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    target = backend.layout.target(VOLUME, "n1")
    target.mkdir(parents=True)
    left = target / "left by somebody"
    left.touch()
    message = f"fuse2fs has not mounted {target}: fuse: mountpoint is not empty"
    try:
        with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
            await backend.mount(VOLUME, "n1")
        assert backend.observe()["v"].mounted_on is None
        left.unlink()
        await backend.mount(VOLUME, "n1")
        assert backend.observe()["v"].mounted_on == "n1"
    finally:
        await backend.clean_up()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "it printed nothing"),
        ("no journal", "no journal"),
        ("no journal\nfuse: device not found", "fuse: device not found"),
        ("fusermount: not allowed\nfuse: failed", "fusermount: not allowed"),
    ],
)
async def test_a_mount_is_believed_only_if_the_kernel_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str
) -> None:
    """Whatever fuse2fs says; the reason is its own, or libfuse's if there is one."""
    fake = tmp_path / "bin" / "fuse2fs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    fake.chmod(0o700)
    monkeypatch.setattr(commands, "_PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    backend = FuseBackend(Layout(tmp_path), {"v": VOLUME})
    message = f"fuse2fs has not mounted {backend.layout.target(VOLUME, 'n1')}: {reason}"
    with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
        await backend.mount(VOLUME, "n1")


@pytest.mark.trio
async def test_a_lazy_unmount_does_not_end_a_fuse_volume(fuse_works: None, tmp_path: Path) -> None:
    """The detach waits for the fuse2fs, which serves a file that is still open."""
    backend = FuseBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    target = backend.layout.target(VOLUME, "n1")
    try:
        with (target / "open").open("wb"):
            await commands.run(cleanup.fusermount(), "-u", "-z", str(target))
            assert backend.observe()["v"].mounted_on is None
            with trio.move_on_after(0.1) as scope:
                await backend.detach(VOLUME, "n1")
            assert scope.cancelled_caught
            assert backend.observe()["v"].attached_to == "n1"
        await backend.detach(VOLUME, "n1")
        assert await backend.leftovers() == []
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
async def test_a_fuse_volume_on_a_full_host_fails_its_check(
    fuse_works: None, tmp_path: Path
) -> None:
    """The unmount does not tell: all exit codes are 0."""
    host = tmp_path / "host"
    host.mkdir()
    await commands.run("mount", "-t", "tmpfs", "-o", f"size={VOLUME.size // 4}", "none", str(host))
    backend = FuseBackend(Layout(host), {"v": VOLUME})
    try:
        await backend.provision(VOLUME)
        await backend.attach(VOLUME, "n1")
        await backend.format(VOLUME)
        await backend.mount(VOLUME, "n1")
        with pytest.raises(OSError, match=r"^\[Errno \d+\] "):
            await backend.write(VOLUME, "n1")
        await backend.unmount(VOLUME, "n1")
        await backend.detach(VOLUME, "n1")
        with pytest.raises(BackendError, match=r"e2fsck"):
            await backend.check(VOLUME)
    finally:
        await backend.clean_up()
        await commands.run("umount", str(host))


@pytest.mark.trio
@pytest.mark.parametrize("kind", [DirectoryBackend, LoopBackend, FuseBackend])
async def test_a_busy_mount_point_cannot_be_unmounted(
    loop_obstacle: str | None,
    fuse_obstacle: str | None,
    tmp_path: Path,
    kind: type[DirectoryBackend | LoopBackend | FuseBackend],
) -> None:
    """Until the process that works in it has gone."""
    obstacle = {"LoopBackend": loop_obstacle, "FuseBackend": fuse_obstacle}.get(kind.__name__)
    if obstacle is not None:
        pytest.skip(obstacle)
    backend = kind(Layout(tmp_path), {"v": VOLUME})
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(commands.hold, backend.layout.target(VOLUME, "n1"))
            with pytest.raises(BackendError, match=r"[Bb]usy"):
                await backend.unmount(VOLUME, "n1")
            nursery.cancel_scope.cancel()
        await backend.unmount(VOLUME, "n1")
        await backend.detach(VOLUME, "n1")
        assert await backend.leftovers() == []
    finally:
        await backend.clean_up()


@pytest.mark.trio
async def test_nobody_can_hold_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Told to who wants to hold it."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(BackendError, match=r"^no process could be started to keep .* busy$"):
            await nursery.start(commands.hold, tmp_path / "missing")


@pytest.mark.trio
async def test_half_a_file_system_counts_as_blank(tmp_path: Path) -> None:
    """Nobody has used it: it is made again."""
    layout = Layout(tmp_path)
    layout.provision(VOLUME)
    with pytest.raises(OSError, match=r"^no$"), layout.formatting(VOLUME):
        layout.image(VOLUME).write_bytes(b"half a file system")
        raise OSError("no")
    assert layout.is_blank(VOLUME)
    with layout.formatting(VOLUME):
        pass
    assert not layout.is_blank(VOLUME)


def test_a_lock_tells_who_holds_it(tmp_path: Path) -> None:
    """It is taken once, and given back."""
    locks = Locks(tmp_path / "locks")
    assert locks.holders() == {}
    locks.take("v", "n1")
    with pytest.raises(BackendError, match=r"^'v' is attached to 'n1' already$"):
        locks.take("v", "n2")
    assert locks.holders() == {"v": "n1"}
    locks.give_back("v")
    assert locks.holders() == {}


def test_a_lock_may_be_given_back_during_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads detach while the controller looks: what has gone is not told."""
    locks, readlink = Locks(tmp_path), Path.readlink
    locks.take("v", "n1")
    locks.take("w", "n1")

    def readlink_late(self: Path) -> Path:
        if self.name == "v":
            locks.give_back("v")
        return readlink(self)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "readlink", readlink_late)
        assert locks.holders() == {"w": "n1"}


def test_an_image_may_be_deleted_during_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread deletes it while the controller looks: it is no volume any more."""
    layout, is_blank = Layout(tmp_path), content.is_blank
    layout.provision(VOLUME)

    def is_blank_late(image: Path) -> bool:
        layout.delete(VOLUME)
        return is_blank(image)

    monkeypatch.setattr(content, "is_blank", is_blank_late)
    assert layout.state(VOLUME, None, None) == VolumeState(provisioned=False, blank=False)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
@pytest.mark.trio
async def test_clean_up_ends_the_processes_of_its_work_folder(tmp_path: Path) -> None:
    """Found by the mark that all children carry, and no others are ended."""
    with commands.marked(tmp_path / "other"):
        other = await trio.lowlevel.open_process(["sleep", "600"])
    with commands.marked(tmp_path):
        ours = await trio.lowlevel.open_process(["sleep", "600"], start_new_session=True)
    # A process that has just been started has no environment for a moment.
    while not Path(f"/proc/{ours.pid}/environ").read_bytes():
        await trio.sleep(0.001)
    try:
        assert [f"process {ours.pid}"] == cleanup.leftovers(tmp_path)
        await cleanup.clean_up(tmp_path)
        assert await ours.wait() == -signal.SIGKILL
        assert cleanup.leftovers(tmp_path) == []
        assert other.poll() is None
    finally:
        other.kill()
        await other.wait()


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


def test_mount_points_may_hold_white_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel escapes a space, a tab, a line feed and a backslash, and nothing else."""
    file = tmp_path / "mountinfo"
    file.write_bytes(
        b"21 20 0:19 / /a/\\040\\011\\012\\134 rw shared:1 - tmpfs none rw\n"
        b"22 20 0:20 / /a/\r\v\f\x85 rw - tmpfs none rw\n"
        b"23 20 0:21 / /b rw - tmpfs none rw\n"
    )
    monkeypatch.setattr(kernel, "_MOUNTS", file)
    inner = Path(os.fsdecode(b"/a/\r\v\f\x85"))
    assert [inner, Path("/a/ \t\n\\")] == kernel.mounts_below(Path("/a"))


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


@contextmanager
def opened(device: str) -> Generator[None]:
    """As another controller's ``losetup --find`` does, for a moment."""
    number = os.open(device, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(number)


async def attached(work: Path) -> tuple[LoopBackend, Path, str]:
    """A backend with an attached volume, its link, and its device."""
    backend = LoopBackend(Layout(work), {"v": VOLUME})
    await backend.provision(VOLUME)
    await backend.attach(VOLUME, "n1")
    ((link, device),) = kernel.loop_devices_below(work).items()
    return backend, link, device


def is_going(device: str) -> bool:
    """Whether it is taken away as soon as nobody has it open."""
    return Path("/sys/block", Path(device).name, "loop/autoclear").read_text() == "1\n"


@pytest.mark.root
@pytest.mark.trio
async def test_a_device_that_is_open_elsewhere_does_not_count_as_detached(
    loop_works: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the kernel says yes to the detach. The link stays: it tells the node."""
    monkeypatch.setattr(cleanup, "DETACH_TIMEOUT", 0.1)
    backend, link, device = await attached(tmp_path)
    try:
        with opened(device):
            message = f"{device} cannot be detached: another program has it open"
            with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
                await backend.detach(VOLUME, "n1")
            assert backend.observe()["v"].attached_to == "n1"
            await backend.clean_up()
            assert [f"loop device on {link}"] == await backend.leftovers()
    finally:
        await backend.clean_up()
    assert await backend.leftovers() == []
    assert not link.exists()


@pytest.mark.root
@pytest.mark.trio
@pytest.mark.parametrize("way", ["detach", "clean up"])
async def test_a_detach_waits_until_nobody_has_the_device_open(
    loop_works: None, tmp_path: Path, way: str
) -> None:
    """Another controller looks at all devices when it attaches its own."""
    backend, link, device = await attached(tmp_path)
    over = trio.Event()

    async def take_away() -> None:
        await (backend.detach(VOLUME, "n1") if way == "detach" else backend.clean_up())
        over.set()

    try:
        async with trio.open_nursery() as nursery:
            with opened(device), trio.fail_after(cleanup.DETACH_TIMEOUT):
                nursery.start_soon(take_away)
                while not is_going(device):
                    await trio.sleep(0.001)
                with trio.move_on_after(0.1):
                    await over.wait()
                assert not over.is_set()
                assert link.exists()
        assert await backend.leftovers() == []
        assert not link.exists()
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
@pytest.mark.parametrize("way", ["detach", "clean up"])
async def test_a_detach_that_was_undone_is_asked_for_again(
    loop_works: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A ``losetup --nooverlap`` of the same file does that, and says nothing."""
    monkeypatch.setattr(cleanup, "DETACH_TIMEOUT", 30.0)
    backend, link, device = await attached(tmp_path)
    try:
        async with trio.open_nursery() as nursery:
            with opened(device):
                if way == "detach":
                    nursery.start_soon(backend.detach, VOLUME, "n1")
                else:
                    nursery.start_soon(backend.clean_up)
                while not is_going(device):
                    await trio.sleep(0.001)
                await commands.run("losetup", "--find", "--nooverlap", str(link))
        assert await backend.leftovers() == []
        assert not link.exists()
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_loop_volume_is_attached_to_one_node_at_a_time(
    loop_works: None, tmp_path: Path, node: str
) -> None:
    """Also while a detach is under way, which goes on."""
    backend, link, device = await attached(tmp_path)
    message = rf"^'v' is attached already: {device}: .*{re.escape(str(link))}\)$"
    try:
        await backend.format(VOLUME)
        await backend.mount(VOLUME, "n1")
        with pytest.raises(BackendError, match=message):
            await backend.attach(VOLUME, node)
        assert backend.observe()["v"].mounted_on == "n1"
        await backend.unmount(VOLUME, "n1")
        with opened(device):
            kernel.detach_loop_device(link, device)
            with pytest.raises(BackendError, match=message):
                await backend.attach(VOLUME, node)
            assert is_going(device)
        await backend.attach(VOLUME, node)
        assert backend.observe()["v"].attached_to == node
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
async def test_an_image_that_somebody_else_has_on_a_device_is_not_attached(
    loop_works: None, tmp_path: Path
) -> None:
    """The device was set up on another path of the file, and stays as it is."""
    backend = LoopBackend(Layout(tmp_path), {"v": VOLUME})
    await backend.provision(VOLUME)
    image = backend.layout.image(VOLUME)
    device = (await commands.run("losetup", "--find", "--show", str(image))).strip()
    try:
        with pytest.raises(BackendError, match=f"^'v' is attached already: {device}: "):
            await backend.attach(VOLUME, "n1")
        assert backend.observe()["v"].attached_to is None
    finally:
        kernel.detach_loop_device(image, device)


@pytest.mark.root
@pytest.mark.trio
@pytest.mark.parametrize("way", ["another mount namespace", "lazy"])
async def test_a_volume_that_is_still_used_does_not_count_as_detached(
    loop_works: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Although it is unmounted: a container has the mount, too, or the unmount was lazy."""
    monkeypatch.setattr(cleanup, "DETACH_TIMEOUT", 0.1)
    backend, link, device = await attached(tmp_path)
    await backend.format(VOLUME)
    await backend.mount(VOLUME, "n1")
    target = backend.layout.target(VOLUME, "n1")
    script = "exec 9> open && echo ready && cd / && exec sleep 600"
    apart = ["unshare", "--mount"] if way == "another mount namespace" else []
    command = [*apart, "sh", "-c", script]
    with subprocess.Popen(command, cwd=target, stdout=subprocess.PIPE) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline() == b"ready\n"
            if way == "lazy":
                await commands.run("umount", "--lazy", str(target))
            else:
                await backend.unmount(VOLUME, "n1")
            message = f"^{device} cannot be detached: another program has it open$"
            with pytest.raises(BackendError, match=message):
                await backend.detach(VOLUME, "n1")
            state = backend.observe()["v"]
            assert (state.mounted_on, state.attached_to) == (None, "n1")
            assert next_step(None, state) == Step("detach", "n1")
            with pytest.raises(BackendError, match=r"^'v' is attached already: "):
                await backend.attach(VOLUME, "n2")
        finally:
            user.kill()
    monkeypatch.undo()
    try:
        await cleanup.detach(link)
        assert backend.observe()["v"].attached_to is None
        await backend.check(VOLUME)
        assert await backend.leftovers() == []
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
async def test_a_file_system_that_met_an_error_is_seen_by_a_write_and_by_the_check(
    loop_works: None, tmp_path: Path
) -> None:
    """Not by its mount, which is there as before; and e2fsck finds nothing wrong."""
    backend, _, device = await attached(tmp_path)
    try:
        await backend.format(VOLUME)
        await backend.mount(VOLUME, "n1")
        target = backend.layout.target(VOLUME, "n1")
        await commands.run("mount", "-o", "remount,errors=remount-ro", str(target))
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("seen")
        assert backend.observe()["v"].mounted_on == "n1"
        with pytest.raises(OSError, match=r"Read-only file system"):
            await backend.write(VOLUME, "n1")
        await backend.unmount(VOLUME, "n1")
        await backend.detach(VOLUME, "n1")
        image = backend.layout.image(VOLUME)
        message = f"the kernel found an error in the file system of {image}"
        with pytest.raises(BackendError, match=f"^{re.escape(message)}$"):
            await backend.check(VOLUME)
    finally:
        await backend.clean_up()


@pytest.mark.root
@pytest.mark.trio
async def test_a_device_that_went_to_another_file_is_not_taken_from_it(
    loop_works: None, tmp_path: Path
) -> None:
    """It was seen, then detached, then found by somebody else."""
    backend, link, device = await attached(tmp_path)
    try:
        kernel.detach_loop_device(tmp_path / "earlier", device)
        assert kernel.loop_devices_below(tmp_path) == {link: device}
        assert not is_going(device)
    finally:
        await backend.clean_up()
    kernel.detach_loop_device(link, device)
    assert await backend.leftovers() == []


@pytest.mark.root
@pytest.mark.trio
async def test_what_keeps_a_device_from_being_detached_is_told(
    loop_works: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the clean-up goes as far as it can."""

    def refuse(file: Path, device: str) -> None:
        raise PermissionError(errno.EPERM, "not allowed", device)

    backend, link, device = await attached(tmp_path)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(cleanup, "DETACH_TIMEOUT", 0.1)
            patched.setattr(kernel, "detach_loop_device", refuse)
            with pytest.raises(BackendError, match=rf"^{device} cannot be .*: .* not allowed: "):
                await backend.detach(VOLUME, "n1")
            await backend.clean_up()
            assert [f"loop device on {link}"] == await backend.leftovers()
    finally:
        await backend.clean_up()
    with pytest.raises(BackendError, match=r"^volume 'v' is not attached to 'n1'$"):
        await backend.detach(VOLUME, "n1")
