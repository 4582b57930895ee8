"""The `tune` pipeline."""
