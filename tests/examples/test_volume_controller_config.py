"""The volume controller's TOML file: what it says, and what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from volume_controller.__main__ import parse as parse_arguments
from volume_controller.config import InputError, Volume, load, parse_size

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
    assert config.damaged == "a"


def test_the_file_that_we_ship_has_twelve_volumes_on_three_nodes() -> None:
    """It can be loaded, and one of its volumes is damaged."""
    config = load(parse_arguments([]).file)
    assert (len(config.volumes), len(config.nodes)) == (12, 3)
    assert config.damaged in config.volumes


def test_faults_may_be_left_out(file: Path) -> None:
    """Without them nothing goes wrong."""
    file.write_text(GOOD.replace('[faults]\ndestroyed_superblock = "a"', ""))
    assert load(file).damaged is None


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
            "the file has an unknown key 'colour': choose from faults, nodes, volumes",
        ),
        (
            "destroyed_superblock",
            "colour",
            "faults has an unknown key 'colour': choose from destroyed_superblock",
        ),
        (
            'superblock = "a"',
            'superblock = "c"',
            "destroyed_superblock is for volume 'c', which is not listed: choose from a, b",
        ),
        ('superblock = "a"', "superblock = 1", "destroyed_superblock must be a text, not 1"),
        (
            '[faults]\ndestroyed_superblock = "a"',
            "faults = 1",
            "faults must be a table, not 1",
        ),
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
    assert message.endswith("; mend it there")


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
