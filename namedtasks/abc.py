"""What you may plug in: the interfaces that a map asks for.

`BackoffPolicy` is structural: anything with a matching ``delay()`` is one.
`Instrument` is a base class: override what you want to hear. What its methods
are given is in `namedtasks.instruments`.
"""

from namedtasks._core.backoff import BackoffPolicy as BackoffPolicy
from namedtasks._core.events import Instrument as Instrument
