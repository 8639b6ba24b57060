"""Where namedtasks says what nobody else would hear: the logger ``namedtasks``."""

from __future__ import annotations

import contextlib
import logging
import traceback

logger = logging.getLogger("namedtasks")


def complain(what: str, error: BaseException) -> None:
    """Log that code which is not ours raised *error*, with its traceback.

    A log handler that raises stops nobody: then standard error has to do.
    """
    try:
        logger.error("%s", what, exc_info=error)
    except Exception:
        with contextlib.suppress(Exception):
            traceback.print_exception(error)
