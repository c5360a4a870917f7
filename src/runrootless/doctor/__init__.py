"""What this host can do for containers without root, found out by trying: a fact a function."""
