"""A status page of task maps, in a browser and as JSON.

`StatusPage` is an ASGI app to mount in yours, and `serve` serves it by itself.
Needs ``pip install namedtasks[status]``.
"""

try:
    import starlette as _starlette  # noqa: F401 # pyright: ignore[reportUnusedImport]
except ImportError as _error:
    raise ImportError(
        "namedtasks.status needs Starlette: pip install namedtasks[status]"
    ) from _error

from namedtasks.status._page import StatusPage as StatusPage
from namedtasks.status._serve import StatusServer as StatusServer, serve as serve
