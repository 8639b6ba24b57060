"""The map in threads.

`task_map` and `future` are public, `backend` acts, `sigint` keeps Ctrl-C out of critical steps.
"""
