"""Synthesise the demo collection: music videos that need no licence, made from seeds."""

from vmnet_pipeline.demo.clip import make_clip
from vmnet_pipeline.demo.collection import DemoSpec, make_demo_collection
from vmnet_pipeline.demo.encode import write_media
from vmnet_pipeline.demo.mood import Mood

__all__ = ["DemoSpec", "Mood", "make_clip", "make_demo_collection", "write_media"]
