"""The asyncio shell of namedtasks: named tasks on an asyncio loop, by the same rules.

Use it as ``import namedtasks.asyncio``; it starts no trio run, and needs none.
All else, such as `namedtasks.Backoff` and the refusals, is in `namedtasks`.
"""

from namedtasks._asyncio.opening import open_task_map as open_task_map
from namedtasks._asyncio.task_map import TaskMap as TaskMap

for _public in (open_task_map, TaskMap):
    _public.__module__ = __name__
