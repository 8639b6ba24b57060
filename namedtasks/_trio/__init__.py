"""The map on trio: `task_map` is public, `backend` acts, `workers` has the trio tasks."""
