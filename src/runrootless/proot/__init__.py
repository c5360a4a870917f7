"""PRoot: which one, where from, and how it is called. Others use ``provision.provide``."""
