"""Starts it. Signals wait from the first step on: the imports are not to be cut short."""

import sys

from volume_controller.signals import hold_signals

if __name__ == "__main__":
    hold_signals()
    from reconcile_common.session import run

    from reconcile_asyncio.controller import work

    sys.exit(run(work))
