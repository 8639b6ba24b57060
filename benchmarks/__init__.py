"""The benchmarks of namedtasks: see README.md."""
