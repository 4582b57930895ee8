"""VM-NET pipeline: from raw video and music files to cross-modal retrieval."""

__version__ = "0.1.0"
