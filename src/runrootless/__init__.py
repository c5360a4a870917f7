"""A rootless OCI runtime for people without root and without subordinate IDs."""

__version__ = "0.1.0"
