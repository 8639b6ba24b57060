#!/usr/bin/env bash
# The guess:
#   A concurrent.futures.Future that answers True to cancel() never runs its function.
# The behaviour:
#   A future of Dask's client.get_executor() is never marked as running: cancel() is True, and
#   cancelled() too, while the function runs in a worker, and it runs on to its end.
# Seen with:
#   distributed 2026.8.0, CPython 3.11.7
# Output:
#   the function runs; running(): False
#   cancel(): True, cancelled(): True
#   the function ran to its end: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'distributed==2026.8.0' 'dask==2026.8.0'

cat >common.py <<'END'
import pathlib
import time

from distributed import Client, LocalCluster


def make_client():
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        dashboard_address=None,
        host="127.0.0.1",
    )
    return Client(cluster)


def wait_for(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
END

cat >work.py <<'END'
import pathlib

import common


def work(folder):
    folder = pathlib.Path(folder)
    (folder / "begun").touch()
    common.wait_for(folder / "go")
    (folder / "ended").touch()
END

cat >see.py <<'END'
import pathlib

import common
import work

if __name__ == "__main__":
    folder = pathlib.Path.cwd()
    with common.make_client() as client:
        future = client.get_executor().submit(work.work, str(folder))
        common.wait_for(folder / "begun")
        running = future.running()
        cancelled = future.cancel()
        print("the function runs; running():", running)
        print(f"cancel(): {cancelled}, cancelled(): {future.cancelled()}")
        assert cancelled and not running and not (folder / "ended").exists()
        (folder / "go").touch()
        common.wait_for(folder / "ended")
        client.cluster.close()
    print("the function ran to its end: True")
END

DASK_TEMPORARY_DIRECTORY=. timeout 120 venv/bin/python see.py 2>/dev/null
echo "as described"
