"""How many of what there is in a map."""

import attrs


@attrs.frozen(kw_only=True)
class TaskMapStatistics:
    """How many of what there is in a map right now; made at a cost that does not grow.

    Example:
        >>> async with open_task_map(limit=1) as tasks:
        ...     for volume in ("pvc-1", "pvc-2", "pvc-3"):
        ...         _ = tasks.start_soon(volume, trio.sleep, 5)
        ...     counts = tasks.statistics()
        ...     print(f"{counts.running} run, {counts.waiting_for_slot} wait for a slot")
        3 run, 2 wait for a slot

    .. versionadded:: 0.1
    """

    running: int
    """Names that are taken, those included whose run waits for a slot."""
    pending: int
    """Starts that were put off, to replace a run or to come after one."""
    waiting_for_slot: int
    """Of those that run, how many wait for a slot: with a limit, or beyond 1 000 threads."""
    overdue: int
    """Of those that run, how many should have stopped ``overdue_after`` seconds ago, and go on."""
    waiting: int
    """Failures on record of names that do not run now: waiting, or ready to be tried again.
    Some may have lapsed: memory is given back bit by bit."""
    gave_up: int
    """Failures on record that stay until they are forgotten."""
    limit: int | None
    """How many bodies may run at once; None if there is no limit."""
