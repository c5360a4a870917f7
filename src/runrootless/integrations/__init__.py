"""The programs that call an OCI runtime: what they need besides the runtime's command line."""
