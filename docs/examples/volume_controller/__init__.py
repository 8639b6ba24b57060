"""A small volume controller: provisions, attaches and mounts real volumes through a task map."""
