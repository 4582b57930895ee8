"""Training pairs: features of both sides, packed into memory-mapped arrays."""
