#!/usr/bin/env bash
# The guess:
#   If an executor's submit() raises, the function will not run, so the caller may try again or
#   free what belongs to the job.
# The behaviour:
#   ThreadPoolExecutor.submit() puts the job into its queue first and starts a thread after that.
#   If the system refuses the thread, submit() raises RuntimeError, and a thread that exists runs
#   the job later. Its future is lost. The refusal is simulated here: Thread.start raises once, as
#   it does at the system's limit.
# Seen with:
#   CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10, 3.15.2
# Output:
#   submit() raised: can't start new thread
#   ran all the same: ['second']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >see.py <<'END'
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

begun, may_end, ran = threading.Event(), threading.Event(), []


def keep_the_only_thread_busy():
    begun.set()
    may_end.wait()


with ThreadPoolExecutor(2) as pool:
    pool.submit(keep_the_only_thread_busy)
    begun.wait()
    with mock.patch.object(
        threading.Thread, "start", side_effect=RuntimeError("can't start new thread")
    ):
        try:
            pool.submit(ran.append, "second")
        except RuntimeError as error:
            print("submit() raised:", error)
        else:
            raise SystemExit("submit() did not raise")
    assert ran == []
    may_end.set()
print("ran all the same:", ran)
assert ran == ["second"]
END

python3 see.py
echo "as described"
