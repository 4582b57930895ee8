"""Retrieval: exact ranks, the figures made of them, and their uncertainty. Knows nothing of kedro."""
