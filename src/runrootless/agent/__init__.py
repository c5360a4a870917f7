"""The process that serves a container's seccomp listeners. Knows no system call's meaning."""
