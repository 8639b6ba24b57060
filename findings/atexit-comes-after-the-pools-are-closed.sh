#!/usr/bin/env bash
# The guess:
#   An atexit function runs while the program's executors still work; it may submit its last jobs,
#   or let queued work go on.
# The behaviour:
#   concurrent.futures closes all its pools before the first atexit function is called (threading
#   calls its own exit functions earlier): submit() raises RuntimeError there, though nobody has
#   called shutdown().
# Seen with:
#   CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10, 3.15.2
# Output:
#   at exit: cannot schedule new futures after shutdown
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >see.py <<'END'
import atexit
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)
pool.submit(int).result()


@atexit.register
def save_at_exit():
    try:
        pool.submit(print, "saved")
    except RuntimeError as error:
        print("at exit:", error)
END

printed=$(python3 see.py)
echo "$printed"
test "$printed" = "at exit: cannot schedule new futures after shutdown"
echo "as described"
