#!/usr/bin/env bash
# The guess:
#   trio.Cancelled.reason is the reason of the cancel scope that catches it.
# The behaviour:
#   It is the reason of the scope that was cancelled first. If an inner scope is cancelled and
#   then an outer one, the task unwinds to the outer scope, with the reason of the inner one.
# Seen with:
#   trio 0.35.0, CPython 3.11.7
# Output:
#   Cancelled.reason: the inner scope was cancelled first
#   caught by the inner scope: False, by the outer scope: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'trio==0.35.0'

cat >see.py <<'END'
import trio


async def main():
    with trio.CancelScope() as outer:
        with trio.CancelScope() as inner:
            inner.cancel("the inner scope was cancelled first")
            outer.cancel("the outer scope was cancelled later")
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                reason = cancelled.reason
                raise
    print("Cancelled.reason:", reason)
    print(
        f"caught by the inner scope: {inner.cancelled_caught}, "
        f"by the outer scope: {outer.cancelled_caught}"
    )
    assert reason == "the inner scope was cancelled first"
    assert (inner.cancelled_caught, outer.cancelled_caught) == (False, True)


trio.run(main)
END

venv/bin/python see.py
echo "as described"
