"""An experiment: a loop that acts on an old listing works twice: ``python -m stale_listing``."""
