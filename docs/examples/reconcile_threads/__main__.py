"""Starts the program. Signals are held from the first step on, so none interrupts the imports."""

import sys

from volume_controller.signals import hold_signals

if __name__ == "__main__":
    hold_signals()
    from reconcile_common.session import run

    from reconcile_threads.controller import work

    sys.exit(run(work))
