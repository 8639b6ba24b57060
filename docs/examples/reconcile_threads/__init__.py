"""A reconcile loop in a plain synchronous program: ``python -m reconcile_threads``."""
