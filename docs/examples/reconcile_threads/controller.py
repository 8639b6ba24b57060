"""The page to copy: a reconcile loop in threads, and the operations that it starts.

``reconcile_common`` has the volumes, the same for asyncio and threads.
"""

from __future__ import annotations

import time

from reconcile_common.session import BACKOFF, LIMIT, PERIOD, TIMEOUT, WISHES, Session
from reconcile_common.volumes import Step, Volumes, Wish

from namedtasks import ThreadTaskMap, current_run


def reconcile(tasks: ThreadTaskMap, session: Session, wish: Wish) -> None:
    """Start what is missing, again and again, until nothing is."""
    while (steps := session.steps_now(tasks, wish)) is not None:
        for name, step in steps.items():
            tasks.submit(
                name,
                perform,
                session.volumes,
                name,
                step,
                if_busy="skip",
                timeout=TIMEOUT,
                operation=step,
            )
        time.sleep(PERIOD)


def perform(volumes: Volumes, name: str, step: Step) -> None:
    """Do one step, in a thread of the map."""
    with volumes.journal.run(name, step):
        if step == "attach":
            wait_for_device(volumes, name)
        volumes.perform(name, step)


def wait_for_device(volumes: Volumes, name: str) -> None:
    """Wait for the device. A thread has to check for itself whether it should stop."""
    while not volumes.has_device(name):
        current_run().check_cancelled()
        time.sleep(0.01)


def work(session: Session) -> None:
    """Bring the volumes up, and down again; the end of the block waits for all runs."""
    with ThreadTaskMap(backoff=BACKOFF, limit=LIMIT, instruments=[session.report]) as tasks:
        for wish in WISHES:
            reconcile(tasks, session, wish)
        tasks.cancel_all(reason=session.why_to_stop)
