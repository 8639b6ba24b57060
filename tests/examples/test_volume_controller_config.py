"""The volume controller's TOML file: what it says, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from volume_controller.__main__ import parse as parse_arguments
from volume_controller.config import DELETED, InputError, Volume, load, parse_size

GOOD = """
nodes = ["n1", "n2"]
[faults]
destroyed_superblock = "a"
[[volumes]]
name = "a"
size = "16Mi"
node = "n1"
[[volumes]]
name = "b"
size = "1Gi"
node = "n2"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "desired.toml"


def test_a_file_gives_volumes_and_two_phases(file: Path) -> None:
    """First every volume is desired on its node, then none is."""
    file.write_text(GOOD)
    config = load(file)
    assert config.nodes == ("n1", "n2")
    assert {"a": Volume("a", 16 * 2**20), "b": Volume("b", 2**30)} == config.volumes
    assert [p.desired for p in config.phases] == [{"a": "n1", "b": "n2"}, {"a": None, "b": None}]
    assert config.faults == {"destroyed_superblock": "a"}


def test_the_file_that_we_ship_has_twelve_volumes_on_three_nodes() -> None:
    """It has a day of four phases, and three faults."""
    config = load(parse_arguments([]).file)
    assert (len(config.volumes), len(config.nodes)) == (12, 3)
    assert (len(config.phases), len(config.faults)) == (4, 3)
    assert list(config.phases[-1].desired.values()).count(DELETED) == 2


def test_faults_may_be_left_out(file: Path) -> None:
    """Without them nothing goes wrong."""
    file.write_text(GOOD.replace('[faults]\ndestroyed_superblock = "a"', ""))
    assert load(file).faults == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'node = "n1"',
            'node = "n9"',
            "volume 'a' is for node 'n9', which is not listed: "
            "add it to nodes, or choose from n1, n2",
        ),
        (
            'nodes = ["n1", "n2"]',
            "nodes = []",
            "volume 'a' is for node 'n1', which is not listed: "
            "add it to nodes, or choose from what you add there",
        ),
        ('name = "b"', 'name = "a"', "volume 'a' is listed twice: rename one of them"),
        ('["n1", "n2"]', '["n1", "n1", "n2"]', "node 'n1' is listed twice: rename one of them"),
        ('name = "a"\n', "", "volume number 1 lacks the key 'name': add it"),
        ('size = "1Gi"\n', "", "volume number 2 lacks the key 'size': add it"),
        ('node = "n2"\n', "", "volume number 2 lacks the key 'node': add it"),
        ('nodes = ["n1", "n2"]', "", "the file lacks the key 'nodes': add it"),
        ('nodes = ["n1", "n2"]', 'nodes = "n1"', "nodes must be a list, not 'n1'"),
        ('["n1", "n2"]', "[1]", "the name of a node must be a text, not 1"),
        ('name = "a"', "name = 7", "the name of a volume must be a text, not 7"),
        ('size = "16Mi"', "size = 16", "the size of volume 'a' must be a text, not 16"),
        ('node = "n1"', "node = true", "the node of volume 'a' must be a text, not True"),
        (
            'size = "16Mi"',
            'size = "16 MB"',
            "volume 'a': size '16 MB' cannot be read: write it as '64Mi' or '1Gi'",
        ),
        (
            'size = "16Mi"',
            'size = "15Mi"',
            "volume 'a': size '15Mi' is out of range: choose between '16Mi' and '16Gi'",
        ),
        (
            'node = "n1"',
            'node = "n1"\ncolour = 1',
            "volume number 1 has an unknown key 'colour': choose from name, node, size",
        ),
        (
            "nodes =",
            "colour = 1\nnodes =",
            "the file has an unknown key 'colour': choose from faults, nodes, phase, volumes",
        ),
        (
            "destroyed_superblock",
            "colour",
            "faults has an unknown key 'colour': "
            "choose from busy_mount_point, destroyed_superblock, hanging_attach",
        ),
        (
            'superblock = "a"',
            'superblock = "c"',
            "destroyed_superblock is for volume 'c', which is not listed: choose from a, b",
        ),
        ('superblock = "a"', "superblock = 1", "destroyed_superblock must be a text, not 1"),
        ('[faults]\ndestroyed_superblock = "a"', "faults = 1", "faults must be a table, not 1"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(
    file: Path, old: str, new: str, message: str
) -> None:
    """One sentence, with the file's name before it."""
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=f"^{re.escape(f'{file}: {message}')}$"):
        load(file)


DAY = """
[[phase]]
title = "up"
attach = "all"
[[phase]]
title = "move"
moves = { a = "n2" }
[[phase]]
title = "down"
detach = ["b"]
[[phase]]
title = "away"
delete = "all"
"""


def test_each_phase_says_what_differs_from_the_one_before(file: Path) -> None:
    """All of a day's verbs."""
    file.write_text(GOOD + DAY)
    phases = load(file).phases
    assert [phase.title for phase in phases] == ["up", "move", "down", "away"]
    assert [
        {"a": "n1", "b": "n2"},
        {"a": "n2", "b": "n2"},
        {"a": "n2", "b": None},
        {"a": DELETED, "b": DELETED},
    ] == [phase.desired for phase in phases]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "up"\n', "", "phase number 1 lacks the key 'title': add it"),
        ('"up"', "1", "the title of phase number 1 must be a text, not 1"),
        (
            'attach = "all"',
            "colour = 1",
            "phase number 1 has an unknown key 'colour': "
            "choose from attach, delete, detach, moves, title",
        ),
        (
            'attach = "all"',
            "",
            "phase number 1 changes nothing: say what to attach, move, detach or delete",
        ),
        (
            'attach = "all"',
            'attach = "a"',
            "attach of phase number 1 must be \"all\" or a list of volumes, not 'a'",
        ),
        (
            'attach = "all"',
            'attach = ["c"]',
            "attach of phase number 1 is for volume 'c', which is not listed: choose from a, b",
        ),
        (
            'attach = "all"',
            'attach = ["b"]',
            "moves of phase number 2: volume 'a' is detached by then",
        ),
        ('{ a = "n2" }', '{ a = "n1" }', "moves of phase number 2: volume 'a' is on 'n1' by then"),
        (
            '{ a = "n2" }',
            '{ a = ["n1", "n2"] }',
            "moves of phase number 2: volume 'a' is on 'n1' by then",
        ),
        *(
            (
                '{ a = "n2" }',
                f"{{ a = {path} }}",
                "the node of 'a' in moves of phase number 2 must be one, or a list of two: "
                "the first node, and the final node",
            )
            for path in ("[]", '["n2", "n2"]', '["n2", "n1", "n2"]')
        ),
        (
            '{ a = "n2" }',
            '{ a = "n3" }',
            "moves of phase number 2: node 'n3' is not listed: choose from n1, n2",
        ),
        (
            "{ a = ",
            "{ c = ",
            "moves of phase number 2 is for volume 'c', which is not listed: choose from a, b",
        ),
        (
            'moves = { a = "n2" }',
            'delete = ["b"]',
            "detach of phase number 3: volume 'b' is deleted by then",
        ),
        (
            'moves = { a = "n2" }',
            'attach = ["a"]',
            "attach of phase number 2: volume 'a' is on 'n1' by then",
        ),
        (
            'detach = ["b"]',
            'detach = ["b"]\ndelete = ["b"]',
            "phase number 3: volume 'b' is listed twice: rename one of them",
        ),
    ],
)
def test_a_mistake_in_a_phase_is_told_with_its_place(
    file: Path, old: str, new: str, message: str
) -> None:
    """Also what cannot be done by then, because of the phases before."""
    assert old in DAY
    file.write_text(GOOD + DAY.replace(old, new, 1))
    with pytest.raises(InputError, match=f"^{re.escape(f'{file}: {message}')}$"):
        load(file)


def test_a_volume_may_set_out_for_another_node_first(file: Path) -> None:
    """And go back to where it was."""
    file.write_text(GOOD + DAY.replace('{ a = "n2" }', '{ a = ["n2", "n1"] }'))
    phase = load(file).phases[1]
    assert (phase.at_first, phase.desired["a"]) == ({"a": "n2"}, "n1")


def test_phases_may_not_be_empty(file: Path) -> None:
    """Left out, they are up and down."""
    file.write_text("phase = []\n" + GOOD)
    message = "there are no phases: add a [[phase]] table for each, or leave phase out"
    with pytest.raises(InputError, match=f"^{re.escape(f'{file}: {message}')}$"):
        load(file)


@pytest.mark.parametrize(
    ("kind", "phase", "message"),
    [
        ("hanging_attach", 'attach = ["b"]', "no phase attaches volume 'a'"),
        ("busy_mount_point", 'attach = ["a"]', "no phase unmounts volume 'a'"),
    ],
)
def test_a_fault_must_be_able_to_happen(file: Path, kind: str, phase: str, message: str) -> None:
    """A fault that is never met would be an error at the end of the day."""
    day = f'[[phase]]\ntitle = "up"\n{phase}\n'
    file.write_text(GOOD.replace("destroyed_superblock", kind) + day)
    message = f"{file}: {kind}: {message}: choose another, or add one"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load(file)


def test_volumes_are_made_up_over_the_nodes(file: Path) -> None:
    """The listed ones stay, and "all" means all."""
    file.write_text(GOOD + DAY)
    config = load(file, 5)
    assert list(config.volumes) == ["a", "b", "extra-3", "extra-4", "extra-5"]
    first = config.phases[0].desired
    assert [first[name] for name in config.volumes] == ["n1", "n2", "n1", "n2", "n1"]
    assert set(config.phases[-1].desired.values()) == {DELETED}


def test_listed_volumes_cannot_be_left_out(file: Path) -> None:
    """The phases and the faults speak of them."""
    file.write_text(GOOD)
    message = f"{file}: it lists 2 volumes: make --volumes 2 or more"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load(file, 1)


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        ("[]", "there are no volumes: add a [[volumes]] table for each"),
        ("{}", "volumes must be a list, not {}"),
        ("[1]", "volume number 1 must be a table, not 1"),
    ],
)
def test_volumes_must_be_a_list_of_tables(file: Path, volumes: str, message: str) -> None:
    """An empty one is a mistake too."""
    file.write_text(f"nodes = []\nvolumes = {volumes}\n")
    with pytest.raises(InputError, match=f"^{re.escape(f'{file}: {message}')}$"):
        load(file)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "A", "-a", "a-", "a b", "ä", "a" * 64])
def test_a_name_must_be_safe_as_a_file_name(file: Path, name: str) -> None:
    """The rule is that of Kubernetes' names, and stricter than file systems need."""
    file.write_text(GOOD.replace('name = "b"', f'name = "{name}"'), encoding="utf-8")
    message = (
        f"{file}: volume name {name!r} is not safe as a file name: use up to 63 of a-z, 0-9 "
        "and '-', with a letter or a digit at both ends"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load(file)


def test_a_file_that_is_not_there(file: Path) -> None:
    """The system's own words are in the message."""
    message = f"cannot read {file}: No such file or directory; name a TOML file"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load(file)


def test_a_file_that_is_no_toml(file: Path) -> None:
    """The parser's own words are in the message, with the line."""
    file.write_text("nodes\n")
    with pytest.raises(InputError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file} is not valid TOML: ")
    assert "line 1" in message
    assert message.endswith("; fix it there")


def test_a_file_that_is_no_text(file: Path) -> None:
    """TOML is always UTF-8."""
    file.write_bytes(b"\xff")
    message = f"{file} is not UTF-8 text: save it as UTF-8"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load(file)


@pytest.mark.parametrize(
    ("text", "size"), [("16Mi", 16 * 2**20), ("999Mi", 999 * 2**20), ("16Gi", 16 * 2**30)]
)
def test_sizes_are_kubernetes_quantities(text: str, size: int) -> None:
    """From 16Mi to 16Gi, both included."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "16", "Mi", "0Mi", "-1Mi", "1.5Gi", "16mi", "16Mi ", "1Ti"])
def test_other_sizes_are_refused(text: str) -> None:
    """The message shows how sizes are written."""
    message = f"size {text!r} cannot be read: write it as '64Mi' or '1Gi'"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_size(text)


@pytest.mark.parametrize("text", ["15Mi", "17Gi", "999999999Gi"])
def test_sizes_out_of_range_are_refused(text: str) -> None:
    """The message says the range."""
    message = f"size {text!r} is out of range: choose between '16Mi' and '16Gi'"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_size(text)
