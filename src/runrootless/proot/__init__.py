"""PRoot: which one, where from, and how it is called. ``provision.provide`` is the door."""
