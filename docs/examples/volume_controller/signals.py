"""The signals that stop a program, and functions that hold them. Imports almost nothing."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the signal of service managers, and the signal of a closed terminal."""


def hold_signals() -> None:
    """Hold signals until `release_signals`, so that they interrupt nothing.

    Code that releases the signals holds them again at its end, when it is too late to stop.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Deliver the signals that were held, and those that follow."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def heard_signals() -> list[signal.Signals]:
    """Return the signals that stop the program: not a hang-up under ``nohup``."""
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if not (nohup and number == signal.SIGHUP)]
