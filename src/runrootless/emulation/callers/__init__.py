"""Who a caller is: credentials of threads, where they are kept, and how execve(2) changes them."""
