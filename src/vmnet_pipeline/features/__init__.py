"""The store of extracted features, what is to be extracted, and packed training pairs."""
