#!/usr/bin/env bash
# The guess:
#   future.cancel() is False only for a job that runs; a ProcessPoolExecutor with one worker,
#   which is busy, can cancel all the others.
# The behaviour:
#   Jobs that were moved to the pool's queue of calls (max_workers + 1 of them) count as running:
#   cancel() is False, running() is True, and they run later. Only what waits behind that queue
#   can be cancelled.
# Seen with:
#   CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10, 3.15.2
# Output:
#   one worker is busy; of 9 more jobs that have not begun:
#   running() is True for job 1: True
#   cancel() of job 1: False; it ran: True
#   cancel() of job 9: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >see.py <<'END'
import multiprocessing
import pathlib
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor


def wait_for(path):
    path.with_suffix(".begun").touch()
    while not path.exists():
        time.sleep(0.005)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(dir="."))
    go = folder / "go"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(wait_for, go)
        while not go.with_suffix(".begun").exists():
            time.sleep(0.005)
        others = [pool.submit((folder / f"job-{number}").touch) for number in range(1, 10)]
        first, last = others[0], others[-1]
        while not first.running():  # the pool's own thread moves it
            time.sleep(0.005)
        cancelled, last_cancelled = first.cancel(), last.cancel()
        begun = (folder / "job-1").exists()
        go.touch()
    print("one worker is busy; of 9 more jobs that have not begun:")
    print("running() is True for job 1:", not begun)
    print(f"cancel() of job 1: {cancelled}; it ran:", (folder / "job-1").exists())
    print("cancel() of job 9:", last_cancelled)
    assert not begun and not cancelled and (folder / "job-1").exists()
    assert last_cancelled and not (folder / "job-9").exists()


if __name__ == "__main__":
    main()
END

python3 see.py
echo "as described"
