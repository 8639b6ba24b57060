#!/usr/bin/env bash
# The guess:
#   subprocess.Popen returns when the new program has begun (it waits for exec, to raise what exec
#   fails with), so /proc/PID/environ and /proc/PID/cmdline are there.
# The behaviour:
#   exec closes the pipe that Popen waits for before it enters the new environment and arguments.
#   For a moment both files are empty, and psutil returns {} and [] without an error; the name is
#   the new one already. So a search for processes by a variable or an argument misses those that
#   are just being started.
# Seen with:
#   psutil 7.2.2, CPython 3.11.7 and 3.13.0, Linux 6.18, two busy cores
# Output (the numbers vary with the load):
#   of 1500 processes just started 190 had no environment, 188 had no arguments
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps psutil==7.2.2

cat >"$work/program.py" <<'PROGRAM'
import sys
import time

import psutil

STARTED = 1500
no_environment = no_arguments = 0
for _ in range(STARTED):
    process = psutil.Popen(["sleep", "600"])
    try:
        no_environment += not process.environ()
        no_arguments += not process.cmdline()
        assert process.name() == "sleep"
        for _ in range(1000):
            if process.environ() and process.cmdline() == ["sleep", "600"]:
                break
            time.sleep(0.01)
        else:
            sys.exit("it stays empty")
    finally:
        process.kill()
        process.wait()
print(f"of {STARTED} processes just started {no_environment} had no environment,", end=" ")
print(f"{no_arguments} had no arguments")
sys.exit(not (no_environment and no_arguments))
PROGRAM
"$work/venv/bin/python" "$work/program.py" || { echo "this has changed" >&2; exit 1; }
echo "as described"
