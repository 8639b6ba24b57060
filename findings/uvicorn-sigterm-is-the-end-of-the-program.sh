#!/usr/bin/env bash
# The guess:
#   A uvicorn that gets SIGTERM shuts down gracefully and then ends as any program does: with exit
#   status 0, after asyncio.run has cancelled the tasks that are left, and after the functions of
#   atexit.
# The behaviour:
#   It shuts down gracefully. Then it puts back the default handler and sends SIGTERM to itself,
#   inside the running event loop: the exit status is 143, tasks that nobody awaits are not
#   cancelled, so that their 'finally' does not run, and no atexit function is called. After Ctrl-C
#   (SIGINT) all of that happens, and the exit status is 0. The end of the lifespan runs both times.
# Seen with:
#   uvicorn 0.54.0, CPython 3.11.7 on Linux (the exit status: since 0.29.0, Kludex/uvicorn#1600)
# Output:
#   TERM: 143, end of the lifespan
#   INT: 0, end of the lifespan, finally of a task, atexit
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check 'uvicorn==0.54.0'

cat >app.py <<'END'
import asyncio
import atexit

atexit.register(print, "atexit", flush=True)
tasks = set()


async def work():
    try:
        await asyncio.sleep(3600)
    finally:
        print("finally of a task", flush=True)


async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    tasks.add(asyncio.create_task(work()))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("end of the lifespan", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
END

# Python starts the server: a shell without job control would have it ignore SIGINT.
cat >see.py <<'END'
import signal
import subprocess
import sys

seen = []
for number in (signal.SIGTERM, signal.SIGINT):
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        for line in server.stderr:
            if "Uvicorn running" in line:
                break
        server.send_signal(number)
        printed = server.stdout.read().splitlines()
        server.stderr.read()
    status = server.returncode if server.returncode >= 0 else 128 - server.returncode
    seen.append(f"{number.name.removeprefix('SIG')}: {', '.join([str(status), *printed])}")
    print(seen[-1])
expected = [
    "TERM: 143, end of the lifespan",
    "INT: 0, end of the lifespan, finally of a task, atexit",
]
sys.exit(seen != expected)
END

venv/bin/python see.py || { echo "this has changed" >&2; exit 1; }
echo "as described"
