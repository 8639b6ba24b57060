"""The texts of the fields in `help()`, where there is no source."""

import pytest

from namedtasks import Outcome, _version


def _no_source(module: object) -> str:
    return ""


@pytest.mark.parametrize("error", [OSError, TypeError, SyntaxError])
def test_fields_have_no_text_without_a_source(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(module: object) -> str:
        raise error

    monkeypatch.setattr("inspect.getsource", fail)
    assert _version._strings_below_fields(Outcome.__module__, "Outcome") == {}


def test_fields_have_no_text_if_the_source_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspect.getsource", _no_source)
    assert _version._strings_below_fields(Outcome.__module__, "Outcome") == {}
