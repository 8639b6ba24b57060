"""Helpers for the tests of programs that use namedtasks, and for whoever plugs something in."""

from namedtasks.testing._check_executor import check_executor as check_executor
from namedtasks.testing._manual_clock import ManualClock as ManualClock
from namedtasks.testing._recording import RecordingInstrument as RecordingInstrument

for _public in (check_executor, ManualClock, RecordingInstrument):
    _public.__module__ = __name__
