"""Search indexes: build, update, filter, re-rank, recommend."""
