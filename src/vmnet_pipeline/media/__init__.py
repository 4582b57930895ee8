"""Probe and decode media files."""
