"""How a command line is read, as each runtime reads it, and the text of --help."""
