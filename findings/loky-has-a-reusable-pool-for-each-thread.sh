#!/usr/bin/env bash
# The guess:
#   loky.get_reusable_executor() gives the one reusable pool of the process.
# The behaviour:
#   The pool is kept in a thread-local: each thread that asks gets a pool, and worker processes,
#   of its own. max_workers limits each pool, not the program.
# Seen with:
#   loky 3.7.0, CPython 3.11.7
# Output:
#   the same pool in one thread: True
#   the same pool in another thread: False
#   worker processes for max_workers=1: 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'loky==3.7.0'

cat >see.py <<'END'
import os
from concurrent.futures import ThreadPoolExecutor

from loky import get_reusable_executor


def ask():
    pool = get_reusable_executor(max_workers=1)
    return pool, pool.submit(os.getpid).result()


def main():
    mine, first = ask()
    again, second = ask()
    with ThreadPoolExecutor(1) as threads:
        other, third = threads.submit(ask).result()
    print("the same pool in one thread:", mine is again)
    print("the same pool in another thread:", mine is other)
    print("worker processes for max_workers=1:", len({first, second, third}))
    assert mine is again and mine is not other
    assert first == second != third
    mine.shutdown()
    other.shutdown()


if __name__ == "__main__":
    main()
END

venv/bin/python see.py
echo "as described"
