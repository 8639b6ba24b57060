"""A reconcile loop on asyncio: ``python -m reconcile_asyncio``."""
