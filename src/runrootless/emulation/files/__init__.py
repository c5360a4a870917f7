"""Calls about files: metadata, owners, creation, device nodes, attributes."""
