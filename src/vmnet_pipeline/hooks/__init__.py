"""Hooks around every Kedro run: configuration, checks, error messages, tracking, results."""
