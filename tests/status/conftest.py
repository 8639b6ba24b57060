"""The tests of the status page need Starlette and its servers."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = ("starlette", "httpx", "uvicorn", "hypercorn")

# All of them are among the test tools: make test
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]
