"""The `index` pipeline."""
