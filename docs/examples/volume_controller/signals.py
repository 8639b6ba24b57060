"""The signals that stop a program, and how to have them wait. Imports next to nothing."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what service managers send, and a terminal that is closed."""


def hold_signals() -> None:
    """Have signals wait until somebody takes them: nothing is to be cut short.

    Who takes them does the same at the end: what is over cannot be stopped any
    more.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Have the signals come that have waited, and those that follow."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def heard_signals() -> list[signal.Signals]:
    """The signals that stop us: not a hang-up under ``nohup``."""
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if not (nohup and number == signal.SIGHUP)]
