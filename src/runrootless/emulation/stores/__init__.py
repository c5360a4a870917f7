"""What lasts longer than a process: records in attributes, and files beside the container."""
