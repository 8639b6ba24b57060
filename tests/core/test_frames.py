"""A user's error begins where the user's code does."""

from types import TracebackType
from typing import Any

from namedtasks._core.frames import without_our_frames


def body() -> None:
    raise ValueError("boom")


def ours() -> None:
    body()


def also_ours() -> None:
    ours()


def functions(traceback: TracebackType | None) -> list[str]:
    names: list[str] = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


OURS = frozenset({ours.__code__, also_ours.__code__})


def test_the_traceback_begins_at_the_body() -> None:
    try:
        also_ours()
    except ValueError as error:
        assert without_our_frames(error, OURS) is error
        assert functions(error.__traceback__) == ["body"]


def test_our_frames_below_the_body_stay() -> None:
    """A body may call us."""

    def theirs() -> None:
        ours()

    try:
        theirs()
    except ValueError as error:
        without_our_frames(error, OURS)
        assert functions(error.__traceback__) == ["theirs", "ours", "body"]


def test_an_error_without_a_frame_of_the_bodys_has_no_traceback() -> None:
    def fails() -> None:
        raise ValueError("boom")

    try:
        fails()
    except ValueError as error:
        without_our_frames(error, frozenset({fails.__code__}))
        assert error.__traceback__ is None


def test_a_class_of_errors_cannot_prevent_it() -> None:
    class OddError(Exception):
        def with_traceback(self, _: Any, /) -> Any:
            raise ZeroDivisionError

    def fails() -> None:
        raise OddError

    try:
        fails()
    except OddError as error:
        assert without_our_frames(error, OURS) is error
        assert functions(error.__traceback__) == ["fails"]
