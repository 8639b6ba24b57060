#!/usr/bin/env bash
# The guess:
#   An exception that cannot be pickled is reported by its own future, like a result that cannot
#   be pickled, and as ProcessPoolExecutor does.
# The behaviour:
#   In loky such a result is that future's error. Such an exception ends the worker process: the
#   pool is broken, and an innocent job of another worker fails with it. The message blames a
#   segmentation fault or a lack of memory. The standard pool reports a TypeError of that job
#   only.
# Seen with:
#   loky 3.7.0, CPython 3.11.7
# Output:
#   loky, result: TypeError, the pool is broken: False
#   loky, exception: TerminatedWorkerError, the innocent job: TerminatedWorkerError
#   standard pool, exception: TypeError, the next job: 3
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'loky==3.7.0'

cat >work.py <<'END'
import pathlib
import threading
import time


class LockedError(Exception):
    def __init__(self):
        self.lock = threading.Lock()


def give_lock():
    return threading.Lock()


def fail():
    raise LockedError


def innocent(begun):
    pathlib.Path(begun).touch()
    time.sleep(30)  # ended with the pool
END

cat >see.py <<'END'
import pathlib
import time
from concurrent.futures import ProcessPoolExecutor

import work
from loky import get_reusable_executor


def name(future):
    return type(future.exception(60)).__name__


def main():
    pool = get_reusable_executor(max_workers=2)
    result = name(pool.submit(work.give_lock))
    print(f"loky, result: {result}, the pool is broken: {pool._flags.broken is not None}")
    assert pool._flags.broken is None
    other = pool.submit(work.innocent, "begun")
    while not pathlib.Path("begun").exists():
        time.sleep(0.005)
    error = name(pool.submit(work.fail))
    print(f"loky, exception: {error}, the innocent job: {name(other)}")
    assert error == name(other) == "TerminatedWorkerError"
    with ProcessPoolExecutor(1) as standard:
        error = name(standard.submit(work.fail))
        value = standard.submit(len, "abc").result(60)
    print(f"standard pool, exception: {error}, the next job: {value}")
    assert (error, value) == ("TypeError", 3)


if __name__ == "__main__":
    main()
END

venv/bin/python see.py 2>/dev/null
echo "as described"
