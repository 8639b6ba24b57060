"""The asyncio dialect of namedtasks: named tasks on an asyncio loop, by the same rules.

Use it as ``import namedtasks.asyncio``; it starts no trio run, and needs none.
All else, such as `namedtasks.Backoff` and the refusals, is in `namedtasks`.
"""

from namedtasks._asyncio.task_map import TaskMap as TaskMap, open_task_map as open_task_map
