"""Retrieval metrics: exact ranks, recall, chance level, bootstrap intervals. Independent of Kedro."""
