"""Runs the experiment in each dialect, and prints the number of runs."""

import asyncio

import trio

from stale_listing.experiment import (
    NAMES,
    Cure,
    Server,
    reconcile_in_threads,
    reconcile_on_asyncio,
    reconcile_on_trio,
)

TITLES: dict[Cure, str] = {
    "none": "without a cure",
    "busy": "busy = set(tasks)",
    "since": "since=look",
}


def count_runs(cure: Cure) -> list[int]:
    """Return the number of runs on asyncio, in threads and on trio."""
    servers = [Server(), Server(), Server()]
    asyncio.run(reconcile_on_asyncio(servers[0], cure))
    reconcile_in_threads(servers[1], cure)
    trio.run(reconcile_on_trio, servers[2], cure)
    return [len(server.runs) for server in servers]


def main() -> None:
    """Print a table: a line for each cure, a column for each dialect."""
    print(f"{f'runs for {len(NAMES)} names':<20}{'asyncio':>9}{'threads':>9}{'trio':>8}")
    for cure, title in TITLES.items():
        on_asyncio, in_threads, on_trio = count_runs(cure)
        print(f"{title:<20}{on_asyncio:>9}{in_threads:>9}{on_trio:>8}")


if __name__ == "__main__":
    main()
