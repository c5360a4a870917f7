"""Calls of sockets that carry credentials or descriptors."""
