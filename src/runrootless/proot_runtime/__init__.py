"""An OCI runtime for hosts without user namespaces, where no other can start: PRoot alone.

It is not an isolation: there are no namespaces, no cgroups, no seccomp profile, and the
container sees the host's processes, devices and network.  What it has is another root
directory, the bind mounts of the bundle, and root that is made up.
Others use ``commands``.
"""
