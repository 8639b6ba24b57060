"""The part that the examples on asyncio and in threads share: everything but the task map."""
