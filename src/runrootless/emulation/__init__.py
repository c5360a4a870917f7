"""What each intercepted system call means. Knows no transport and no container."""
