"""Takes our own frames off the tracebacks of users' errors."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from types import CodeType


def without_our_frames(error: BaseException, ours: AbstractSet[CodeType]) -> BaseException:
    """Start *error*'s traceback at the body: shorter to read, and no cycle through our frames.

    It was just caught: its first frame is the one that caught it.
    """
    traceback = error.__traceback__
    assert traceback is not None
    traceback = traceback.tb_next
    while traceback is not None and traceback.tb_frame.f_code in ours:
        traceback = traceback.tb_next
    return BaseException.with_traceback(error, traceback)  # past what its class makes of that
