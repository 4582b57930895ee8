"""Which part of a track goes with a video: structure of both, candidates, and the terms of their score."""
