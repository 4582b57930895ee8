"""Probing, decoding and making media files."""
