"""The private directory of each container, and what stays beside a container."""
