"""The asyncio dialect of namedtasks: the same rules for tasks on an asyncio loop.

Write ``import namedtasks.asyncio``. It does not use trio.
Everything else, such as `namedtasks.Backoff` and the refusals, is in `namedtasks`.
"""

from namedtasks._asyncio.task_map import TaskMap as TaskMap, open_task_map as open_task_map
