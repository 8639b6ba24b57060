"""The thread shell: does, in the words of `concurrent.futures`, what the core decides.

``main_thread`` which thread is the main one
``interrupts``  keeps Ctrl-C out of what must not be left half done
``locking``     the guard, which no thread enters twice, and where waits sleep
``turnstile``   one thing at a time that takes locks which are not ours
``clock``       the time that goes by when nobody injects another
``run``         one run, and who the calling thread runs for
``future``      a run as its starter sees it
``telling``     who is told what, and in which order: futures and instruments
``places``      where runs run: the map's own threads, and pools
``shell``       starts, stops and ends runs
``alarm``       the one timer: whose wait is over, who does not stop when asked
``waits``       the waits, and why a task may not wait for itself
``block``       the end of a ``with`` block
``task_map``    all of it as its users see it
"""
