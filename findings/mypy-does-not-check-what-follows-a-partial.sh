#!/usr/bin/env bash
# The guess:
#   A function that takes Callable[[*Ts], T] and *args: *Ts is checked for functools.partial as
#   for any callable.
# The behaviour:
#   mypy reports a wrong argument for the plain function, and nothing if the function is wrapped
#   in a functools.partial, though mypy knows partial by a plugin and checks a direct call of it.
# Seen with:
#   mypy 2.4.1, CPython 3.11.7
# Output:
#   plain function: error [arg-type]
#   direct call of a partial: error [arg-type]
#   partial handed over with its argument: no error
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'mypy==2.4.1'

cat >see.py <<'END'
from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def start(fn: Callable[[*Ts], T], *args: *Ts) -> T:
    return fn(*args)


def half(number: int) -> float:
    return number / 2


start(half, "three")
partial(half)("three")
start(partial(half), "three")
END

report=$(venv/bin/mypy --strict see.py || true)
grep -q '^see.py:17: error: .*\[arg-type\]$' <<<"$report"
echo "plain function: error [arg-type]"
grep -q '^see.py:18: error: .*\[arg-type\]$' <<<"$report"
echo "direct call of a partial: error [arg-type]"
if grep -q '^see.py:19: error' <<<"$report"; then exit 1; fi
echo "partial handed over with its argument: no error"
echo "as described"
