"""Media folders and csv files to a manifest of items and a split."""
