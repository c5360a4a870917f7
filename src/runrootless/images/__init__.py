"""Images: bundles are made of them, and they of bundles."""
