"""The trio shell: does, in trio's words, what the core decides.

``lots``      where those sleep who wait for one thing
``run``       one run, from its admission to what it gave back
``handle``    a run as its starter sees it
``shell``     starts, cancels and ends runs, and wakes who waits
``alarm``     the one timer: whose wait is over, who does not stop when asked
``workers``   the trio tasks that bodies run in, one after the other
``inside``    what leans on more of trio than it promises
``executors`` functions that run elsewhere
``waits``     the waits, and why a task may not wait for itself
``task_map``  all of it as its users see it
``opening``   the ``async with`` block, and what may leave it
"""
