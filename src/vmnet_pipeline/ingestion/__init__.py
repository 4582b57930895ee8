"""From folders of media and csv files to a manifest of items and a split."""
