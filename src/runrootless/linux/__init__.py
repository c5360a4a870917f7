"""Thin bindings of kernel interfaces, one file each, without policy."""
