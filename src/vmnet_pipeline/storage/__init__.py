"""Files and their places: local paths and object stores, atomic writes, locks, append-only logs."""
