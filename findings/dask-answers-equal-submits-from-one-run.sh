#!/usr/bin/env bash
# The guess:
#   client.get_executor() is a concurrent.futures.Executor: each submit() runs its function once.
# The behaviour:
#   Dask takes a call of the same function with equal arguments for the same job (pure=True by
#   default): it runs once, and both futures get its result. get_executor(pure=False) or
#   submit(..., pure=False) prevents that.
# Seen with:
#   distributed 2026.8.0, CPython 3.11.7
# Output:
#   two submits, runs: 1
#   two submits with pure=False, runs: 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'distributed==2026.8.0' 'dask==2026.8.0'

cat >common.py <<'END'
from distributed import Client, LocalCluster


def make_client():
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        dashboard_address=None,
        host="127.0.0.1",
    )
    return Client(cluster)


def note(path):
    with open(path, "a") as log:
        log.write("x")
END

cat >see.py <<'END'
import pathlib

import common


def runs(executor, name):
    path = str(pathlib.Path(name).absolute())
    futures = [executor.submit(common.note, path) for _ in range(2)]
    for future in futures:
        future.result(60)
    return len(pathlib.Path(path).read_text())


if __name__ == "__main__":
    with common.make_client() as client:
        once, twice = runs(client.get_executor(), "a"), runs(client.get_executor(pure=False), "b")
        client.cluster.close()
    print("two submits, runs:", once)
    print("two submits with pure=False, runs:", twice)
    assert (once, twice) == (1, 2)
END

DASK_TEMPORARY_DIRECTORY=. venv/bin/python see.py 2>/dev/null
echo "as described"
