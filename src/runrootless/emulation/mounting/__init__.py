"""Calls that change mounts, the root directory or namespaces."""
