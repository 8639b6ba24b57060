"""What can listen to a map, and what it hears.

`Instrument` is the base class; `LoggingInstrument` is every map's default. The
rest are the events, one for each of `Instrument`'s methods.
"""

from namedtasks._core.events import (
    Instrument as Instrument,
    TaskCancelled as TaskCancelled,
    TaskEvent as TaskEvent,
    TaskFailed as TaskFailed,
    TaskForgotten as TaskForgotten,
    TaskGaveUp as TaskGaveUp,
    TaskOverdue as TaskOverdue,
    TaskQueued as TaskQueued,
    TaskRefused as TaskRefused,
    TaskStarted as TaskStarted,
    TaskSucceeded as TaskSucceeded,
    TaskSuperseded as TaskSuperseded,
)
from namedtasks.instruments.logging import LoggingInstrument as LoggingInstrument
