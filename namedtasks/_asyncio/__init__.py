"""The asyncio shell: does, in asyncio's words, what the core decides.

``lots``      where those sleep who wait for one thing
``run``       one run, from its admission to its end
``shell``     starts, cancels and ends runs, and wakes who waits
``alarm``     the one timer: whose wait is over, who does not stop when asked
``executors`` functions in threads and pools, which cannot be stopped
``waits``     the waits, and why a task may not wait for itself
``task_map``  all of it as its users see it
``opening``   the ``async with`` block, and what may leave it

Inside of this package, ``asyncio`` is the standard library.
"""
