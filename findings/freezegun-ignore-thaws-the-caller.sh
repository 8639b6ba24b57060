#!/usr/bin/env bash
# The guess:
#   freeze_time(ignore=['trio']) leaves trio's own clock alone, and everything else is frozen.
# The behaviour:
#   freezegun looks at the five innermost callers of time.time() and time.monotonic(), and gives
#   the real time if one of them is in an ignored module. An async function is called by trio, so
#   the code under test gets the real time in its upper functions, and the frozen one further
#   down. datetime.now() is frozen in both.
# Seen with:
#   freezegun 1.5.5, trio 0.35.0, CPython 3.11.7
# Output:
#   in the async function: time.time() is frozen: False, datetime.now() is frozen: True
#   five calls further down: time.time() is frozen: True, datetime.now() is frozen: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'freezegun==1.5.5' 'trio==0.35.0'

cat >see.py <<'END'
import datetime
import time

import trio
from freezegun import freeze_time

FROZEN = 1577836800


def look(depth):
    if depth:
        return look(depth - 1)
    return time.time() == FROZEN, datetime.datetime.now().year == 2020


async def main():
    return look(0), look(5)


with freeze_time("2020-01-01", ignore=["trio"]):
    above, below = trio.run(main)
for where, (clock, date) in (("in the async function", above), ("five calls further down", below)):
    print(f"{where}: time.time() is frozen: {clock}, datetime.now() is frozen: {date}")
assert above == (False, True)
assert below == (True, True)
END

venv/bin/python see.py
echo "as described"
