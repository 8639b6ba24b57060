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
    """Return the number of runs on trio, on asyncio and in threads."""
    servers = [Server(), Server(), Server()]
    trio.run(reconcile_on_trio, servers[0], cure)
    asyncio.run(reconcile_on_asyncio(servers[1], cure))
    reconcile_in_threads(servers[2], cure)
    return [len(server.runs) for server in servers]


def main() -> None:
    """Print a table: a line for each cure, a column for each dialect."""
    print(f"{f'runs for {len(NAMES)} names':<20}{'trio':>8}{'asyncio':>9}{'threads':>9}")
    for cure, title in TITLES.items():
        on_trio, on_asyncio, in_threads = count_runs(cure)
        print(f"{title:<20}{on_trio:>8}{on_asyncio:>9}{in_threads:>9}")


if __name__ == "__main__":
    main()
