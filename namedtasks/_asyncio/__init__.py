"""The map on asyncio: `task_map` is public, `backend` acts.

Inside this package, ``asyncio`` is the standard library.
"""
