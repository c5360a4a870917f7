"""The one way from what a caller names to a descriptor that the agent holds."""
