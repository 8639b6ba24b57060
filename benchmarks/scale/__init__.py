"""A controller of very many names, for minutes: its speed, its memory, its pauses."""
