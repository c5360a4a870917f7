"""The private directory of each container, and the processes that outlive the command."""
