"""Decides, and does nothing else: the rules that every shell shares.

The rules of this folder:

1. It imports no trio, no asyncio, no threading, no clock, no randomness and no
   logging. Time is in seconds on a clock that never goes back: up to the engine
   it comes in as an argument, the conductor is given the clock; a run that is asked
   by another thread whether it should stop looks at the conductor's. Randomness and a
   place to complain to come in as callables. An import contract in CI guards this.
2. A call that raises leaves everything as it was.
3. What is told to others (the instruments) is first noted and only delivered
   when a shell says so, because a shell with a lock must let go of it first.
   The same goes for the user's policy and for copying errors: each is a
   function of its own, called before the ledger is touched.
4. Where there are threads, what changes something is called under a lock, and
   the conductor says where that is.

Who is who, from the inside out:

``errors``, ``text``     what we raise, and how it reads
``complaints``           who hears what went wrong in others' code
``checks``, ``callables`` which mistakes of callers can be told at the call
``frames``, ``groups``   what is made of an error that came out of a body
``backoff``              how long a name waits
``table``                a dict that gives memory back, whatever its keys do
``stand_ins``            what is remembered in an error's place
``records``              what is remembered of a failure, and for how long
``runs``                 one admitted run of a name
``obstacles``            what can stand in the way of a start, and how it is told
``names``                which names overlap
``ledger``               the state table of names
``slots``, ``timers``    who may begin, and what is due when
``pending``              who comes after a run
``events``, ``dispatch``, ``notes``
                         what instruments hear, who hears it, and when it is made
``turns``, ``succession``
                         what follows from a change, and who comes next
``statistics``           how many there are of what
``engine``               all of the above as one thing that is driven
``holds``, ``posts``     what waits wait for, and what other threads ask to be started
``conductor``, ``verbs`` what every shell does, and every map offers, the same way
"""
