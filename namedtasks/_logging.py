"""The logger ``namedtasks``, for errors that no caller gets."""

from __future__ import annotations

import contextlib
import logging
import traceback

logger = logging.getLogger("namedtasks")


def log_error(what: str, error: BaseException) -> None:
    """Log *error*, which code outside this package raised, with its traceback.

    If a log handler raises, the traceback goes to standard error.
    """
    try:
        logger.error("%s", what, exc_info=error)
    except Exception:
        with contextlib.suppress(Exception):
            traceback.print_exception(error)
