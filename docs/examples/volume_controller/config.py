"""The desired states: reads a TOML file, checks it, and makes frozen records of it.

A mistake in the file gives an error of one sentence: it says where the mistake is, and how to fix
it. The controller has changed nothing by then.
"""

from __future__ import annotations

import enum
import itertools
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, cast

import attrs

LEAST_SIZE = 16 * 1024**2
"""An ext4 needs more than 8 MiB to have a backup superblock, which faults.py needs."""

MOST_SIZE = 16 * 1024**3
"""I pulled this number out of the air: more than a demo needs."""

MOST_VOLUMES = 10_000
"""I pulled this number out of the air, too: a typing error must not fill the disk."""

_UNITS = {"Mi": 1024**2, "Gi": 1024**3}
_SIZE = re.compile(r"([1-9][0-9]{0,8})(Mi|Gi)")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label in the sense of Kubernetes (RFC 1123): safe as a file name everywhere."""


class Deleted(enum.Enum):
    """An enum with one member, so that type checkers tell it from the other `Desired` values."""

    DELETED = "deleted"


DELETED: Final = Deleted.DELETED
"""The desired state of a volume that should be deleted, with everything in it."""

Desired = str | Literal[Deleted.DELETED] | None
"""The desired state of a volume: mounted on a node, detached (None), or `DELETED`."""

FaultKind = Literal["busy_mount_point", "destroyed_superblock", "hanging_attach"]
FAULTS: Final[tuple[FaultKind, ...]] = (
    "busy_mount_point",
    "destroyed_superblock",
    "hanging_attach",
)
"""The possible faults: the keys of the table *faults*. See faults.py."""


class InputError(Exception):
    """Unusable input from the user; the text says how to fix it."""


@attrs.frozen
class Volume:
    """A volume."""

    name: str
    """Its name, which is also the name of its files and the first half of its task names."""
    size: int
    """Its size in bytes."""


@attrs.frozen
class Phase:
    """A desired state of the world, to be reached before the next phase begins."""

    title: str
    """Its title, for people."""
    desired: Mapping[str, Desired]
    """The desired state of each volume, by name."""
    at_first: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The node that a volume is sent to first, until it is on its way there, by name."""


@attrs.frozen
class Config:
    """The content of the file."""

    nodes: tuple[str, ...]
    """The names of the nodes."""
    volumes: Mapping[str, Volume]
    """The volumes, by name."""
    phases: tuple[Phase, ...]
    """The desired states, one after the other."""
    faults: Mapping[FaultKind, str]
    """The volume of each fault."""


def load(path: Path, count: int | None = None) -> Config:
    """Read the file at *path*, and add made-up volumes until there are *count*.

    Raises:
        InputError: it cannot be read, or asks for something impossible.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a TOML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}; fix it there") from error
    try:
        return parse(data, count)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse(data: Mapping[str, object], count: int | None = None) -> Config:
    """Check the content of a TOML file.

    Raises:
        InputError: it asks for something impossible.
    """
    _check_keys("the file", data, {"nodes", "volumes"}, optional={"faults", "phase"})
    nodes = _nodes(_list("nodes", data["nodes"]))
    tables = _list("volumes", data["volumes"])
    placed = [_volume(f"volume number {n}", table, nodes) for n, table in enumerate(tables, 1)]
    if not placed:
        raise InputError("there are no volumes: add a [[volumes]] table for each")
    _check_unique("volume", [volume.name for volume, _ in placed])
    home = {volume.name: node for volume, node in placed}
    made_up = _made_up(count, home, nodes)
    home |= {volume.name: node for volume, node in made_up}
    phases = _phases(data.get("phase"), home, nodes)
    return Config(
        nodes=nodes,
        volumes={volume.name: volume for volume, _ in [*placed, *made_up]},
        phases=phases,
        faults=_faults(data.get("faults", {}), phases),
    )


def parse_size(text: str) -> int:
    """Return the bytes of a Kubernetes quantity such as ``64Mi`` or ``1Gi``.

    Raises:
        InputError: it is no quantity, or too small, or too large.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InputError(f"size {text!r} cannot be read: write it as '64Mi' or '1Gi'")
    size = int(match[1]) * _UNITS[match[2]]
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise InputError(f"size {text!r} is out of range: choose between '16Mi' and '16Gi'")
    return size


def _made_up(
    count: int | None, home: Mapping[str, str], nodes: Sequence[str]
) -> list[tuple[Volume, str]]:
    if count is None:
        return []
    if count < len(home):
        raise InputError(f"it lists {len(home)} volumes: make --volumes {len(home)} or more")
    names = (f"extra-{number}" for number in itertools.count(len(home) + 1))
    free = (name for name in names if name not in home)
    more = itertools.islice(zip(free, itertools.cycle(nodes), strict=False), count - len(home))
    return [(Volume(name, LEAST_SIZE), node) for name, node in more]


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


def _phases(value: object, home: Mapping[str, str], nodes: Collection[str]) -> tuple[Phase, ...]:
    if value is None:
        return (
            Phase("every volume mounted on its node, and written", home),
            Phase("every volume unmounted, detached and checked", dict.fromkeys(home)),
        )
    tables = _list("phase", value)
    if not tables:
        raise InputError("there are no phases: add a [[phase]] table for each, or leave phase out")
    phases: list[Phase] = []
    desired: Mapping[str, Desired] = dict.fromkeys(home)
    for number, table in enumerate(tables, 1):
        phases.append(_phase(f"phase number {number}", table, desired, home, nodes))
        desired = phases[-1].desired
    return tuple(phases)


def _phase(
    where: str,
    value: object,
    before: Mapping[str, Desired],
    home: Mapping[str, str],
    nodes: Collection[str],
) -> Phase:
    """Return the phase after *before*: the file only has the differences."""
    table = _table(where, value)
    _check_keys(where, table, {"title"}, optional={"attach", "moves", "detach", "delete"})
    title = _text(f"the title of {where}", table["title"])
    attached = [name for name, node in before.items() if isinstance(node, str)]
    detached = [name for name, node in before.items() if node is None]
    present = [*attached, *detached]
    attach = _names(f"attach of {where}", table.get("attach", []), detached, before)
    moves = list(_moves(f"moves of {where}", table.get("moves", {}), before, nodes))
    detach = _names(f"detach of {where}", table.get("detach", []), attached, before)
    delete = _names(f"delete of {where}", table.get("delete", []), present, before)
    changes: list[tuple[str, Desired]] = [
        *((name, home[name]) for name in attach),
        *((name, path[-1]) for name, path in moves),
        *((name, None) for name in detach),
        *((name, DELETED) for name in delete),
    ]
    _check_unique(f"{where}: volume", [name for name, _ in changes])
    if not changes:
        raise InputError(f"{where} changes nothing: say what to attach, move, detach or delete")
    at_first = {name: path[0] for name, path in moves if len(path) > 1}
    return Phase(title, {**before, **dict(changes)}, at_first)


def _names(
    where: str, value: object, possible: Collection[str], before: Mapping[str, Desired]
) -> Collection[str]:
    if value == "all":
        return possible
    if isinstance(value, str):
        raise InputError(f'{where} must be "all" or a list of volumes, not {value!r}')
    names = [_text(f"a volume in {where}", name) for name in _list(where, value)]
    for name in names:
        _check_listed(where, name, before)
        if name not in possible:
            raise InputError(f"{where}: volume {name!r} is {_told(before[name])} by then")
    return names


def _moves(
    where: str, value: object, before: Mapping[str, Desired], nodes: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each volume that moves, with its node, or with its first node and its final node."""
    for name, to in _table(where, value).items():
        _check_listed(where, name, before)
        what = f"the node of {name!r} in {where}"
        steps = cast("list[object]", to) if isinstance(to, list) else [to]
        path = [_text(what, one) for one in steps]
        if not 1 <= len(path) == len(set(path)) <= 2:
            raise InputError(
                f"{what} must be one, or a list of two: the first node, and the final node"
            )
        for node in path:
            if node not in nodes:
                raise InputError(
                    f"{where}: node {node!r} is not listed: choose from {', '.join(nodes)}"
                )
        if not isinstance(before[name], str) or before[name] == path[0]:
            raise InputError(f"{where}: volume {name!r} is {_told(before[name])} by then")
        yield name, path


def _told(desired: Desired) -> str:
    if desired is DELETED:
        return "deleted"
    return "detached" if desired is None else f"on {desired!r}"


def _faults(value: object, phases: Sequence[Phase]) -> Mapping[FaultKind, str]:
    table = _table("faults", value)
    _check_keys("faults", table, set(), optional=FAULTS)
    return {kind: _fault(kind, table[kind], phases) for kind in FAULTS if kind in table}


def _fault(kind: FaultKind, value: object, phases: Sequence[Phase]) -> str:
    name = _text(kind, value)
    _check_listed(kind, name, phases[0].desired)
    wishes = [phase.desired[name] for phase in phases]
    attached = list(itertools.dropwhile(lambda wish: not isinstance(wish, str), wishes))
    if not attached:
        raise InputError(f"{kind}: no phase attaches volume {name!r}: choose another, or add one")
    if kind == "busy_mount_point" and attached.count(attached[0]) == len(attached):
        raise InputError(f"{kind}: no phase unmounts volume {name!r}: choose another, or add one")
    return name


def _check_listed(where: str, name: str, volumes: Collection[str]) -> None:
    if name not in volumes:
        raise InputError(
            f"{where} is for volume {name!r}, which is not listed: choose from {', '.join(volumes)}"
        )


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
    where: str, table: Mapping[str, object], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    known = sorted([*needed, *optional])
    for key in table:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}: choose from {', '.join(known)}")
    for key in sorted(needed):
        if key not in table:
            raise InputError(f"{where} lacks the key {key!r}: add it")
