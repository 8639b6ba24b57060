"""The page to copy: a reconcile loop on asyncio, and the operations that it starts.

``reconcile_common`` has the volumes, the same for asyncio and threads. An operation that waits is
a coroutine, and asyncio can cancel it. An operation on files blocks, so it is a function in a
thread.
"""

from __future__ import annotations

import asyncio

from reconcile_common.session import BACKOFF, LIMIT, PERIOD, TIMEOUT, WISHES, Session
from reconcile_common.volumes import Step, Volumes, Wish

import namedtasks.asyncio


async def reconcile(tasks: namedtasks.asyncio.TaskMap, session: Session, wish: Wish) -> None:
    """Start what is missing, again and again, until nothing is."""
    while (steps := session.steps_now(tasks, wish)) is not None:
        for name, step in steps.items():
            start(tasks, session.volumes, name, step)
        await asyncio.sleep(PERIOD)


def start(tasks: namedtasks.asyncio.TaskMap, volumes: Volumes, name: str, step: Step) -> None:
    """Start one step under the volume's name: on the loop if it waits, otherwise in a thread."""
    if step == "attach":
        tasks.create_task(
            name, attach, volumes, name, if_busy="skip", timeout=TIMEOUT, operation=step
        )
    else:
        tasks.run_in_executor(
            name, perform, volumes, name, step, if_busy="skip", timeout=TIMEOUT, operation=step
        )


async def attach(volumes: Volumes, name: str) -> None:
    """Wait for the device, and then take the lock, which is quick."""
    with volumes.journal.run(name, "attach"):
        while not volumes.has_device(name):  # noqa: ASYNC110 - the device sends no event
            await asyncio.sleep(0.01)
        volumes.perform(name, "attach")


def perform(volumes: Volumes, name: str, step: Step) -> None:
    """Do one step, in a thread."""
    with volumes.journal.run(name, step):
        volumes.perform(name, step)


def work(session: Session) -> None:
    """Bring the volumes up, and down again."""
    asyncio.run(reconcile_all(session))


async def reconcile_all(session: Session) -> None:
    """Reconcile one wish after the other; the end of the block waits for all runs."""
    async with namedtasks.asyncio.open_task_map(
        backoff=BACKOFF, limit=LIMIT, instruments=[session.report]
    ) as tasks:
        for wish in WISHES:
            await reconcile(tasks, session, wish)
        tasks.cancel_all(reason=session.why_to_stop)
