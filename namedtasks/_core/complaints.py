"""Where the core says what went wrong in code that is not its own: it logs nothing itself."""

from collections.abc import Callable

Complain = Callable[[str, BaseException], None]
"""Takes what went wrong, in words, and the error."""
