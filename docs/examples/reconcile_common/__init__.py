"""What the examples in threads and in asyncio share: all but the task map."""
