"""What there is to tell of runs: each event is made only if somebody hears it."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import final

from namedtasks._core.dispatch import Dispatch
from namedtasks._core.errors import RefusedError
from namedtasks._core.events import (
    TaskCancelled,
    TaskFailed,
    TaskForgotten,
    TaskGaveUp,
    TaskOverdue,
    TaskQueued,
    TaskRefused,
    TaskStarted,
    TaskSucceeded,
    TaskSuperseded,
)
from namedtasks._core.records import Record
from namedtasks._core.runs import Run


@final
class Notes:
    """Notes events for a `Dispatch` to deliver; all times are on the map's clock."""

    __slots__ = ("_dispatch",)

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def hears_refusals(self) -> bool:
        """Whether `refused` would be heard: else there is no need for the error."""
        return self._dispatch.wants(TaskRefused)

    def refused(
        self,
        name: Hashable,
        operation: str | None,
        now: float,
        error: RefusedError,
        *,
        skipped: bool,
    ) -> None:
        """A start was refused."""
        if self._dispatch.wants(TaskRefused):
            self._dispatch.note(
                TaskRefused(name=name, operation=operation, at=now, error=error, skipped=skipped)
            )

    def queued(self, run: Run, now: float) -> None:
        """*run* was put off."""
        how = run.put_off
        if how is not None and self._dispatch.wants(TaskQueued):
            self._dispatch.note(
                TaskQueued(name=run.name, operation=run.operation, at=now, if_busy=how), run
            )

    def superseded(self, run: Run, now: float) -> None:
        """A newer start has taken the place of *run*, which was pending."""
        if self._dispatch.wants(TaskSuperseded):
            self._dispatch.note(TaskSuperseded(name=run.name, operation=run.operation, at=now), run)

    def started(self, run: Run, now: float) -> None:
        """The body of *run* begins."""
        if self._dispatch.wants(TaskStarted):
            self._dispatch.note(
                TaskStarted(name=run.name, operation=run.operation, at=now, failures=run.failures),
                run,
            )

    def overdue(self, run: Run, now: float, asked_at: float) -> None:
        """*run* did not stop, though it was asked to at *asked_at*."""
        if self._dispatch.wants(TaskOverdue):
            self._dispatch.note(
                TaskOverdue(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    duration=_duration(run, now),
                    asked_at=asked_at,
                ),
                run,
            )

    def succeeded(self, run: Run, now: float) -> None:
        """*run* has returned."""
        if self._dispatch.wants(TaskSucceeded):
            self._dispatch.note(
                TaskSucceeded(
                    name=run.name, operation=run.operation, at=now, duration=_duration(run, now)
                ),
                run,
            )

    def failed(
        self, run: Run, error: BaseException, now: float, failures: int, delay: float | None
    ) -> None:
        """*run* has failed, and its name waits, gives up, or neither."""
        if self._dispatch.wants(TaskFailed):
            self._dispatch.note(
                TaskFailed(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    duration=_duration(run, now),
                    error=error,
                    failures=failures,
                    retry_at=None if delay is None else now + delay,
                    retry_in=delay,
                ),
                run,
            )
        if delay == math.inf and self._dispatch.wants(TaskGaveUp):
            self._dispatch.note(
                TaskGaveUp(
                    name=run.name, operation=run.operation, at=now, failures=failures, error=error
                ),
                run,
            )

    def cancelled(self, run: Run, now: float) -> None:
        """*run* was cancelled, and has heeded it or never begun."""
        if self._dispatch.wants(TaskCancelled):
            self._dispatch.note(
                TaskCancelled(
                    name=run.name,
                    operation=run.operation,
                    at=now,
                    duration=None if run.started_at is None else now - run.started_at,
                    reason=run.reason,
                ),
                run,
            )

    def forgotten(self, records: list[Record], now: float) -> None:
        """Failures were dropped."""
        if self._dispatch.wants(TaskForgotten):
            for one in records:
                self._dispatch.note(
                    TaskForgotten(
                        name=one.name, operation=one.operation, at=now, failures=one.failures
                    )
                )


def _duration(run: Run, now: float) -> float:
    return 0.0 if run.started_at is None else now - run.started_at
