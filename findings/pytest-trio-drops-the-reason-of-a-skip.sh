#!/usr/bin/env bash
# The guess:
#   pytest.skip('reason') in an async test is reported with its reason, as in any other test.
# The behaviour:
#   pytest-trio 0.8 raises a new exception without the reason: the report says 'Skipped', at a
#   line of pytest itself. pytest.xfail('reason') loses its reason in the same way.
# Seen with:
#   pytest-trio 0.8.0, pytest 9.2.0, trio 0.35.0, CPython 3.11.7
# Output:
#   plain test: SKIPPED with its reason
#   async test: SKIPPED without
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'pytest-trio==0.8.0' 'pytest==9.2.0' 'trio==0.35.0'

cat >test_skips.py <<'END'
import pytest


def test_plain():
    pytest.skip("no device for the plain test")


@pytest.mark.trio
async def test_async():
    pytest.skip("no device for the async test")
END

report=$(venv/bin/python -m pytest -q -rs test_skips.py)
grep -q "2 skipped" <<<"$report"
grep -q "no device for the plain test" <<<"$report"
echo "plain test: SKIPPED with its reason"
if grep -q "no device for the async test" <<<"$report"; then exit 1; fi
grep -qE "^SKIPPED .*: Skipped$" <<<"$report"
echo "async test: SKIPPED without"
echo "as described"
