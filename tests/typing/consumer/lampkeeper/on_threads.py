"""The keeper in threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Executor, Future, as_completed
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, assert_type

from namedtasks import IfBusy, TaskFuture, ThreadTaskMap, current_run
from namedtasks.abc import Clock, Instrument

T = TypeVar("T")
Args = TypeVarTuple("Args")


def submit(
    tasks: ThreadTaskMap,
    name: Hashable,
    fn: Callable[[*Args], T],
    *args: *Args,
    if_busy: IfBusy = "refuse",
) -> TaskFuture[T] | None:
    """Any function with any arguments, passed along; the type of its result arrives."""
    return tasks.submit(name, fn, *args, if_busy=if_busy)


class ThreadKeeper:
    """Owns a map, and is a block as the map is."""

    def __init__(
        self,
        *,
        instruments: Iterable[Instrument] = (),
        executor: Executor | Callable[[], Executor] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._tasks = ThreadTaskMap(instruments=instruments, executor=executor, clock=clock)

    def __enter__(self) -> Self:
        self._tasks.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.__exit__(exc_type, exc, traceback)

    def _light(self, lamp: str, watts: int) -> float:
        run = current_run()
        assert_type(run.cancel_requested, bool)
        run.check_cancelled()
        return 1000 / watts

    def light(self, lamp: str, watts: int, *, if_busy: IfBusy = "skip") -> Future[float] | None:
        """A future for who knows nothing of namedtasks."""
        return submit(self._tasks, lamp, self._light, lamp, watts, if_busy=if_busy)

    def light_all(self, lamps: dict[str, int]) -> float:
        futures = [
            self._tasks.submit(lamp, self._light, lamp, watts, if_busy="queue")
            for lamp, watts in lamps.items()
        ]
        assert_type(futures, list[TaskFuture[float]])
        assert_type(futures[0].started_at, float | None)
        return sum(future.result() for future in as_completed(futures))

    def lit(self) -> dict[Hashable, TaskFuture[Any]]:
        assert_type(self._tasks.wait_free("a", 0.0), bool)
        return dict(self._tasks)
