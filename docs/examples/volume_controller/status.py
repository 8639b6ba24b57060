"""The status page of the controller: ``--status 127.0.0.1:8080``. It is optional."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from namedtasks.instruments import Instrument
from volume_controller.config import InputError
from volume_controller.report import Report

CURE = "python -m pip install 'namedtasks[status]' hypercorn"


@attrs.frozen
class Address:
    """The address of the page."""

    host: str
    port: int


@asynccontextmanager
async def status_page(
    address: Address | None, report: Report
) -> AsyncGenerator[Sequence[Instrument]]:
    """Serve the page inside the block, and yield the instruments for it; none without *address*.

    Raises:
        InputError: the page needs packages that are missing, or the address cannot be used.
    """
    if address is None:
        yield ()
        return
    async with AsyncExitStack() as stack:
        try:
            from namedtasks.status import StatusPage, serve  # noqa: PLC0415 - optional

            page = StatusPage(title="volume controller")
            server = serve(page, host=address.host, port=address.port)
            await stack.enter_async_context(server)
        except ImportError as error:
            raise InputError(f"--status needs packages that are missing: {CURE}") from error
        except OSError as error:
            raise InputError(
                f"no status page at {address.host} port {address.port}: {error}"
            ) from error
        report.tell("status", f"status page: {server.url}", url=server.url)
        yield (page.instrument("volumes"),)
