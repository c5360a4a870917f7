"""Ways to registries."""
