"""The feature store: one file per item, an index, maintenance."""
