"""Helpers for the tests of programs that use namedtasks, and of executors for it."""

from namedtasks.testing._check_executor import check_executor as check_executor
from namedtasks.testing._doubles import (
    ManualClock as ManualClock,
    RecordingInstrument as RecordingInstrument,
)

for _public in (check_executor, ManualClock, RecordingInstrument):
    _public.__module__ = __name__
