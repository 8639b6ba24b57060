"""The history of a map: the last outcomes of its names, and counts of failures in a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import final

from namedtasks._state import Outcome, read_shared


@final
class Outcomes:
    """The last outcome of each of the names and operations whose runs ended last."""

    def __init__(self, most: int) -> None:
        self._most = most
        # An OrderedDict removes its first entry at a constant cost, and a dict does not.
        self._outcomes: OrderedDict[tuple[Hashable, str | None], Outcome] = OrderedDict()

    def add(self, outcome: Outcome) -> None:
        """Add *outcome* as the last one; drop the earlier one of its name and operation."""
        key = (outcome.name, outcome.operation)
        self._outcomes[key] = outcome
        self._outcomes.move_to_end(key)
        if len(self._outcomes) > self._most:
            self._outcomes.popitem(last=False)

    def snapshot(self) -> list[Outcome]:
        """Return the outcomes, the oldest first. Callable from any thread."""
        return read_shared(lambda: list(self._outcomes.values()))


@final
class FailureCounts:
    """The numbers of failures in a row of all names and operations, also of those that run."""

    def __init__(self, threshold: int) -> None:
        self.threshold: int = threshold
        self.highest: int = 0
        """The most failures in a row."""
        self.failing: int = 0
        """The names and operations with at least `threshold` failures in a row."""
        self._names: dict[int, int] = {}
        """The number of names, by their failures in a row."""

    def add(self, failures: int) -> None:
        """Add a name with *failures* failures in a row."""
        self._names[failures] = self._names.get(failures, 0) + 1
        if failures > self.highest:
            self.highest = failures
        if failures >= self.threshold:
            self.failing += 1

    def discard(self, failures: int) -> None:
        """Remove a name with *failures* failures in a row."""
        left = self._names[failures] - 1
        if failures >= self.threshold:
            self.failing -= 1
        if left:
            self._names[failures] = left
            return
        del self._names[failures]
        # Amortized constant: each step down follows a failure that has raised it by one.
        while self.highest and self.highest not in self._names:
            self.highest -= 1
