"""The end of a map's ``with`` block: it waits for what runs, and closes the map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from namedtasks._core.text import error_text
from namedtasks._threads import waits

if TYPE_CHECKING:
    from namedtasks._threads.shell import Shell


def leave(shell: Shell, exc: BaseException | None) -> None:
    """Leave the block, whose body has raised *exc*, if anything.

    Raises:
        BaseException: what a signal handler raised while it waited: Ctrl-C, as a rule.
    """
    shell.end_block()
    raised = exc
    try:
        if raised is None:
            raised = _wait_for_runs(shell)
        if raised is not None:
            shell.cancel_all(f"the map's block raised {error_text(raised)}")
            waits.sleep_while(shell, shell.hold_all_told, math.inf)
        if raised is not exc and raised is not None:
            raise raised
    finally:
        del raised, exc  # no cycle through the traceback
        shell.close()
        shell.places.close()


def _wait_for_runs(shell: Shell) -> BaseException | None:
    """Wait for all to end and to be told; what a signal handler raised meanwhile."""
    try:
        waits.sleep_while(shell, shell.hold_all_told, math.inf)
    except BaseException as interrupt:
        return interrupt
    return None
