"""gevent replaces the functions of threading: before namedtasks is imported, or not at all."""

import threading

import pytest

from namedtasks import ThreadTaskMap
from namedtasks._threads import backend, task_map
from tests.threads.helpers import run_child

REPLACED = (
    "the functions of threading were replaced after namedtasks was imported: "
    "call gevent.monkey.patch_all(), or a similar function, before you import namedtasks"
)

PATCH = """
import warnings
from gevent import monkey
with warnings.catch_warnings():
    warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)  # ssl is imported already
    monkey.patch_all()
"""


@pytest.fixture(name="replaced")
def compare_with_other_functions(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the functions of `threading` be others than at the import.

    Not those of `threading` are replaced: a thread of another test may be just starting.
    """
    for module in (backend, task_map):
        monkeypatch.setattr(module, "get_ident", lambda: 1)
    return monkeypatch


@pytest.mark.usefixtures("replaced")
def test_a_map_is_refused_once_threading_was_replaced() -> None:
    with pytest.raises(RuntimeError, match=f"^{REPLACED.replace('()', r'[(][)]')}$"):
        ThreadTaskMap()


def test_a_start_is_refused_once_threading_was_replaced(replaced: pytest.MonkeyPatch) -> None:
    with replaced.context() as as_imported:
        for module in (backend, task_map):
            as_imported.setattr(module, "get_ident", threading.get_ident)
        tasks = ThreadTaskMap()
    with pytest.raises(RuntimeError, match="were replaced"):
        tasks.submit("job", len, "abc")
    assert "job" not in tasks
    replaced.undo()
    assert tasks.submit("job", len, "abc").result() == 3
    tasks.shutdown()


def printed_by(program: str) -> str:
    pytest.importorskip("gevent", reason="gevent is not installed: run make gevent")
    done = run_child(program)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "program",
    [
        f"import namedtasks\n{PATCH}\nmake = namedtasks.ThreadTaskMap",
        "import namedtasks\ntasks = namedtasks.ThreadTaskMap()\n"
        f"{PATCH}\nmake = lambda: tasks.submit('job', len, 'abc')",
    ],
    ids=["a new map", "a map that was made before"],
)
def test_gevent_after_the_import_is_refused(program: str) -> None:
    assert (
        printed_by(f"{program}\ntry:\n    make()\nexcept RuntimeError as error:\n    print(error)")
        == f"{REPLACED}\n"
    )


def test_gevent_before_the_import_works() -> None:
    """The bodies are greenlets, which go on while others wait."""
    program = """
import time, namedtasks
with namedtasks.ThreadTaskMap(backoff=namedtasks.Backoff(initial=0.01)) as tasks:
    begun = time.monotonic()
    futures = [tasks.submit(number, time.sleep, 0.01) for number in range(50)]
    queued = tasks.submit(0, len, "abc", if_busy="queue")
    print(tasks.wait_idle(), [future.result() for future in futures] == [None] * 50)
    print(queued.result())
    tasks.submit("slow", time.sleep, 0.05, timeout=0.01).result()
    tasks.wait_empty()
"""
    assert printed_by(f"{PATCH}\n{program}") == "True True\n3\n"
