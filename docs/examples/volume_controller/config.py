"""What is desired: a TOML file, checked and made into frozen records.

A mistake in the file is told in one sentence that says where it is and what to
do about it. Nothing has been done by then.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs

LEAST_SIZE = 16 * 1024**2
"""An ext4 needs more than 8 MiB to have a backup superblock: faults.py wants one."""

MOST_SIZE = 16 * 1024**3
"""I pulled this number out of the air: more than a demo needs."""

_UNITS = {"Mi": 1024**2, "Gi": 1024**3}
_SIZE = re.compile(r"([1-9][0-9]{0,8})(Mi|Gi)")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""What Kubernetes calls a DNS label (RFC 1123). It is safe as a file name everywhere."""


class InputError(Exception):
    """What the user gave cannot be used; the text says the cure."""


@attrs.frozen
class Volume:
    """A volume, wherever it is."""

    name: str
    """Its name; also the name of its tasks and of its files."""
    size: int
    """Its size in bytes."""


@attrs.frozen
class Phase:
    """A desired state of the world, to be reached before the next phase begins."""

    title: str
    """What it is about, for people."""
    desired: Mapping[str, str | None]
    """For each volume's name the node to mount it on; None for detached."""


@attrs.frozen
class Config:
    """All that the file says."""

    nodes: tuple[str, ...]
    """The names of the nodes."""
    volumes: Mapping[str, Volume]
    """The volumes by their names."""
    phases: tuple[Phase, ...]
    """What is desired, one state after the other."""
    damaged: str | None
    """The volume whose superblock is to be destroyed before its first mount, if any."""


def load(path: Path) -> Config:
    """Read the file at *path*.

    Raises:
        InputError: it cannot be read, or says something that cannot be done.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a TOML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}; mend it there") from error
    try:
        return parse(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse(data: Mapping[str, object]) -> Config:
    """Check what a TOML file holds.

    Raises:
        InputError: it says something that cannot be done.
    """
    _check_keys("the file", data, {"nodes", "volumes"}, optional={"faults"})
    nodes = _nodes(_list("nodes", data["nodes"]))
    tables = _list("volumes", data["volumes"])
    placed = [_volume(f"volume number {n}", table, nodes) for n, table in enumerate(tables, 1)]
    if not placed:
        raise InputError("there are no volumes: add a [[volumes]] table for each")
    _check_unique("volume", [volume.name for volume, _ in placed])
    desired = {volume.name: node for volume, node in placed}
    return Config(
        nodes=nodes,
        volumes={volume.name: volume for volume, _ in placed},
        phases=_up_and_down(desired),
        damaged=_damaged(data.get("faults", {}), desired),
    )


def parse_size(text: str) -> int:
    """Bytes for a Kubernetes quantity such as ``64Mi`` or ``1Gi``.

    Raises:
        InputError: it is none, or too small, or too large.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InputError(f"size {text!r} cannot be read: write it as '64Mi' or '1Gi'")
    size = int(match[1]) * _UNITS[match[2]]
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise InputError(f"size {text!r} is out of range: choose between '16Mi' and '16Gi'")
    return size


def _up_and_down(desired: Mapping[str, str | None]) -> tuple[Phase, ...]:
    return (
        Phase("every volume mounted on its node, and written", desired),
        Phase("every volume unmounted, detached and checked", dict.fromkeys(desired)),
    )


def _nodes(names: Sequence[object]) -> tuple[str, ...]:
    nodes = tuple(_name("node", name) for name in names)
    _check_unique("node", nodes)
    return nodes


def _volume(where: str, value: object, nodes: Collection[str]) -> tuple[Volume, str]:
    table = _table(where, value)
    _check_keys(where, table, {"name", "size", "node"})
    name = _name("volume", table["name"])
    where = f"volume {name!r}"
    node = _text(f"the node of {where}", table["node"])
    if node not in nodes:
        raise InputError(
            f"{where} is for node {node!r}, which is not listed: "
            f"add it to nodes, or choose from {', '.join(nodes) or 'what you add there'}"
        )
    return Volume(name, _size(where, _text(f"the size of {where}", table["size"]))), node


def _size(where: str, text: str) -> int:
    try:
        return parse_size(text)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _damaged(value: object, volumes: Collection[str]) -> str | None:
    faults = _table("faults", value)
    _check_keys("faults", faults, set(), optional={"destroyed_superblock"})
    if "destroyed_superblock" not in faults:
        return None
    name = _text("destroyed_superblock", faults["destroyed_superblock"])
    if name not in volumes:
        raise InputError(
            f"destroyed_superblock is for volume {name!r}, which is not listed: "
            f"choose from {', '.join(volumes)}"
        )
    return name


def _name(kind: str, value: object) -> str:
    name = _text(f"the name of a {kind}", value)
    if _NAME.fullmatch(name) is None:
        raise InputError(
            f"{kind} name {name!r} is not safe as a file name: use up to 63 of a-z, 0-9 and '-', "
            "with a letter or a digit at both ends"
        )
    return name


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} must be a text, not {value!r}")
    return value


def _table(where: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a table, not {value!r}")
    return cast(dict[str, object], value)


def _list(where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list, not {value!r}")
    return cast(list[object], value)


def _check_unique(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{kind} {name!r} is listed twice: rename one of them")


def _check_keys(
    where: str,
    table: Mapping[str, object],
    needed: Collection[str],
    optional: Collection[str] = (),
) -> None:
    known = sorted([*needed, *optional])
    for key in table:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}: choose from {', '.join(known)}")
    for key in sorted(needed):
        if key not in table:
            raise InputError(f"{where} lacks the key {key!r}: add it")
