"""The owner, mode and kind that a file shows, whatever it is on the host."""
