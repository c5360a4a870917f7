"""The bundle: reading its spec, transforming it and writing the derived one."""
