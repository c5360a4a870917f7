"""The commands of our own and those of runc that need more than the runtime: one file each."""
