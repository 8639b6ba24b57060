"""The order of imports, for programs that import in several threads."""

import importlib
import inspect

import pytest

import namedtasks


@pytest.mark.parametrize("name", ["_trio", "_threads", "_asyncio"])
def test_instruments_are_imported_from_their_package(name: str) -> None:
    """An import of a submodule locks it before its package: so two threads could deadlock."""
    source = inspect.getsource(importlib.import_module(f"namedtasks.{name}.task_map"))
    assert "namedtasks.instruments.logging" not in source
    assert "instruments.logging" not in namedtasks._HOMES
