"""The interpreter's exit, in a process of its own: a hung thread does not hang it."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_hung_thread_does_not_hang_the_exit() -> None:
    done = run_program(
        """
        import asyncio, threading
        import namedtasks.asyncio

        async def main(told):
            async with namedtasks.asyncio.open_task_map(overdue_after=0.01) as tasks:
                here = threading.Event()
                def hang():
                    here.set()
                    threading.Event().wait()
                tasks.run_in_executor("hangs", hang)
                await asyncio.get_running_loop().run_in_executor(None, here.wait)
                told.set_result(await tasks.shutdown(grace=0))

        loop = asyncio.new_event_loop()
        told = loop.create_future()
        block = loop.create_task(main(told))  # which never comes to its end
        print(loop.run_until_complete(told))
        print("exits")
        """
    )
    assert done.returncode == 0
    assert done.stdout == "('hangs',)\nexits\n"


def test_ctrl_c_under_asyncio_run_leaves_one_traceback() -> None:
    done = run_program(
        """
        import asyncio, signal
        import namedtasks.asyncio

        async def main():
            async with namedtasks.asyncio.open_task_map() as tasks:
                tasks.create_task("a", asyncio.sleep, 100)
                await asyncio.sleep(0)
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(100)

        asyncio.run(main())
        """
    )
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in done.stderr


def test_the_third_ctrl_c_gets_away_from_a_hung_thread() -> None:
    """The first cancels the block, the second ends the main task's run, the third asyncio's."""
    done = run_program(
        """
        import asyncio, signal, threading
        import namedtasks.asyncio

        async def main():
            async with namedtasks.asyncio.open_task_map() as tasks:
                here = threading.Event()
                def hang():
                    here.set()
                    threading.Event().wait()
                tasks.run_in_executor("hangs", hang)
                await asyncio.to_thread(here.wait)
                for number in range(3):
                    loop = asyncio.get_running_loop()
                    loop.call_later(number * 0.02, signal.raise_signal, signal.SIGINT)
                await asyncio.sleep(100)

        asyncio.run(main())
        """
    )
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_importing_namedtasks_alone_does_not_import_its_asyncio_shell() -> None:
    done = run_program(
        """
        import sys
        import namedtasks
        print("namedtasks._asyncio" in sys.modules)
        import namedtasks.asyncio
        print("namedtasks._asyncio" in sys.modules)
        """
    )
    assert done.stdout == "False\nTrue\n"
