"""A controller of very many names that runs for minutes: its speed, memory and pauses."""
