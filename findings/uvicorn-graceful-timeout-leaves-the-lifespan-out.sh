#!/usr/bin/env bash
# The guess:
#   uvicorn --timeout-graceful-shutdown 1 ends about a second after SIGTERM, whatever the
#   application does; or at the latest at Ctrl-C, as it says "CTRL+C to force quit".
# The behaviour:
#   Both are for the requests in progress. After them uvicorn waits for the end of the lifespan,
#   without a limit, and takes no notice of further signals: only SIGKILL ends it.
# Seen with:
#   uvicorn 0.54.0, CPython 3.11.7 on Linux (intended: Kludex/uvicorn#1824; Ctrl-C: #2751, open)
# Output:
#   4 seconds after SIGTERM, after three times Ctrl-C: still running
#   when the lifespan has ended: it ends
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'uvicorn==0.54.0'

cat >app.py <<'END'
import asyncio
import pathlib


async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    while not pathlib.Path("may-end").exists():
        await asyncio.sleep(0.01)
    await send({"type": "lifespan.shutdown.complete"})
END

cat >see.py <<'END'
import pathlib
import signal
import subprocess
import sys
import time

command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
command += ["--timeout-graceful-shutdown", "1"]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    try:
        for line in server.stderr:
            if "Uvicorn running" in line:
                server.send_signal(signal.SIGTERM)
            if "Waiting for application shutdown" in line:
                break
        for _ in range(3):
            time.sleep(1)
            server.send_signal(signal.SIGINT)
        time.sleep(1)
        if server.poll() is not None:
            sys.exit("it has ended")
        print("4 seconds after SIGTERM, after three times Ctrl-C: still running")
        pathlib.Path("may-end").touch()
        server.stderr.read()
        server.wait(60)
        print("when the lifespan has ended: it ends")
    finally:
        server.kill()
END

venv/bin/python see.py || { echo "this has changed" >&2; exit 1; }
echo "as described"
