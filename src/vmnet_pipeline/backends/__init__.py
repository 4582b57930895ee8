"""Feature backends: from one media file to one feature array. Usable as a library, see `registry.get_backend`."""
