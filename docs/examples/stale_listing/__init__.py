"""An experiment: a loop on an old listing does work twice: ``python -m stale_listing``."""
