"""What the tests run containers with: users, trees, bundles, and the oracle."""
