"""The state machines, for as long as you like: ``make fuzz``."""

from __future__ import annotations

import os

VARIABLE = "NAMEDTASKS_EXAMPLES"
"""Environment: how many times as many examples as in the usual tests."""


def examples(usual: int) -> int:
    """How many examples a state machine runs: *usual*, or more of them in ``make fuzz``."""
    return usual * int(os.environ.get(VARIABLE, "1"))
