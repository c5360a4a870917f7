"""Calls about processes: capabilities, limits, signals, priorities, tracing, their /proc files."""
