"""Encoders of the Hugging Face ecosystem as feature backends: the extra `encoders`."""
