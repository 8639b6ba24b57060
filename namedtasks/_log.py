"""Where namedtasks says what nobody else would hear: the logger ``namedtasks``."""

from __future__ import annotations

import logging

logger = logging.getLogger("namedtasks")


def complain(what: str, error: BaseException) -> None:
    """Log that code which is not ours raised *error*, with its traceback."""
    logger.error("%s", what, exc_info=error)
