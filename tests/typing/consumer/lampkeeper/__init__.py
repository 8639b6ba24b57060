"""Keeps lamps lit, in three worlds."""

from lampkeeper.on_asyncio import AsyncioKeeper as AsyncioKeeper
from lampkeeper.on_threads import ThreadKeeper as ThreadKeeper
from lampkeeper.on_trio import TrioKeeper as TrioKeeper, open_keeper as open_keeper
from lampkeeper.plugs import Patience as Patience, Tally as Tally
