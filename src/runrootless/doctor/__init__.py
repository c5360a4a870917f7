"""What this host can do for containers without root: one function tries one fact."""
