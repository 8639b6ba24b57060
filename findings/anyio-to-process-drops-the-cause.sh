#!/usr/bin/env bash
# The guess:
#   anyio.to_process.run_sync() raises what the function raised, with its cause or at least the
#   worker's traceback as a text, as ProcessPoolExecutor does.
# The behaviour:
#   The exception arrives without __cause__, and with no trace of the worker's frames: 'raise ...
#   from error' is lost. ProcessPoolExecutor keeps all of it as a text.
# Seen with:
#   anyio 4.16.0, CPython 3.11.7
# Output:
#   anyio: cause None, the worker's frame is named: False
#   ProcessPoolExecutor: cause _RemoteTraceback, the worker's frame is named: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'anyio==4.16.0'

cat >work.py <<'END'
def mount():
    try:
        {}["superblock"]
    except KeyError as error:
        raise ValueError("no volume") from error
END

cat >see.py <<'END'
import traceback
from concurrent.futures import ProcessPoolExecutor

import anyio
import anyio.to_process
import work


def describe(error):
    cause = None if error.__cause__ is None else type(error.__cause__).__name__
    return cause, "in mount" in "".join(traceback.format_exception(error))


async def in_anyio():
    try:
        await anyio.to_process.run_sync(work.mount)
    except ValueError as error:
        return describe(error)


def main():
    here = anyio.run(in_anyio)
    with ProcessPoolExecutor(1) as pool:
        there = describe(pool.submit(work.mount).exception())
    for name, (cause, named) in (("anyio", here), ("ProcessPoolExecutor", there)):
        print(f"{name}: cause {cause}, the worker's frame is named: {named}")
    assert here == (None, False)
    assert there == ("_RemoteTraceback", True)


if __name__ == "__main__":
    main()
END

venv/bin/python see.py
echo "as described"
