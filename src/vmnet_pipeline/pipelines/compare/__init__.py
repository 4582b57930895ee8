"""The `compare` pipeline."""
