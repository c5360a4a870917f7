"""Whether an emulated user may do what a call asks for, as the kernel decides it."""
