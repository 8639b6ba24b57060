"""A small volume controller: provisions, attaches and mounts real volumes with a task map."""
