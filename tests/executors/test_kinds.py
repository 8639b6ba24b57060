"""Each kind of executor that we name keeps the rules, as `check_executor` has them."""

import pkgutil
from collections.abc import Generator

import pytest
import trio

from namedtasks.testing import check_executor
from tests.executors import kinds
from tests.executors.conftest import CURE


@pytest.fixture(scope="module", autouse=True)
def pools_are_shut_down() -> Generator[None]:
    yield
    for pool in (kinds.thread_pool, kinds.process_pool):
        pool().shutdown()
        pool.cache_clear()


async def test_threads() -> None:
    await check_executor(kinds.on_threads)


async def test_processes() -> None:
    await check_executor(kinds.on_processes)


@pytest.mark.usefixtures("loky_pool")
async def test_loky() -> None:
    await check_executor(kinds.on_loky)


@pytest.mark.parametrize(
    "place", ["trio_parallel:run_sync", f"{kinds.__name__}:killing_trio_parallel"]
)
async def test_trio_parallel(place: str) -> None:
    pytest.importorskip("trio_parallel", reason=CURE)
    await check_executor(pkgutil.resolve_name(place), importable=place)


@pytest.mark.parametrize("place", ["anyio.to_process:run_sync", f"{kinds.__name__}:killing_anyio"])
async def test_anyio(place: str) -> None:
    pytest.importorskip("anyio", reason=CURE)
    await check_executor(pkgutil.resolve_name(place), importable=place)


async def test_trios_own_threads() -> None:
    await check_executor(trio.to_thread.run_sync)
