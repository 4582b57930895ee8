"""The extraction pipelines."""
