"""Calls in other shapes: those of 32-bit programs, and those with IDs of 16 bits."""
