#!/usr/bin/env bash
# The guess:
#   Python looks for signals after every call, so that in
#       print("ready", flush=True); time.sleep(60)
#   a Ctrl-C that arrives while the line is written is handled before the sleep begins.
# The behaviour:
#   Up to CPython 3.13 it is. From 3.14 on it is not when a built-in function is called with a
#   keyword argument and the call runs for the first time, as in a script: the handler runs when
#   the sleep is over. With a positional argument, or when the same line runs again, it runs
#   before. So a parent that reads "ready" and sends SIGINT at once may wait for the whole sleep.
# Seen with:
#   CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2 on Linux
# Output:
#   3.13.0 positional: before the sleep, keyword: before the sleep
#   3.14.10 positional: before the sleep, keyword: after the sleep
#   3.15.2 positional: before the sleep, keyword: after the sleep
# Needs: a Python 3.14 or newer on the PATH, or PYTHON=... to name one. No package.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/program.py" <<'PROGRAM'
import signal
import sys
import time

handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(time.monotonic()))


def positional():
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    sum(range(20_000_000), 0); time.sleep(2)
    return time.monotonic()


def keyword():
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    sum(range(20_000_000), start=0); time.sleep(2)
    return time.monotonic()


def when(function):
    end = function()
    return "before the sleep" if end - handled.pop() > 1 else "after the sleep"


seen = when(positional), when(keyword)
print(sys.version.split()[0], "positional: %s, keyword: %s" % seen)
late = "after the sleep" if sys.version_info >= (3, 14) else "before the sleep"
sys.exit(seen != ("before the sleep", late))
PROGRAM

tried=
for python in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3.15}; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -I "$work/program.py" || { echo "this has changed" >&2; exit 1; }
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 14))'; then tried=yes; fi
done
[ -n "$tried" ] || { echo "skipped: no Python 3.14 or newer was found"; exit 77; }
echo "as described"
