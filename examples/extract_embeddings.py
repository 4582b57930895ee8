"""Embeddings from a trained network: what goes in, and the shapes that come out.

    python examples/extract_embeddings.py CHECKPOINT [--music FILE] [--video FILE]

CHECKPOINT is a folder that training made, e.g. data/06_models/demo/vmnet_musicnn, or a summaries_dir of the reference.
The features here are random numbers of the right shape; yours come from the extraction pipelines, or from --music and
--video, which take any media file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vmnet_pipeline import Embedder

DEFAULT_CHECKPOINT = Path("data/06_models/demo/vmnet_musicnn")


def show(what: str, music: np.ndarray | None, video: np.ndarray | None) -> None:
    """Print the shapes of one result."""
    shapes = ["None" if side is None else str(side.shape) for side in (music, video)]
    print(f"{what:<44} music {shapes[0]:<12} video {shapes[1]}")


def main() -> None:
    """Embed one item, a batch, items of unlike length, pooled items, one side, and media files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--music", type=Path, help="Media file whose audio is embedded.")
    parser.add_argument("--video", type=Path, help="Media file whose frames are embedded.")
    options = parser.parse_args()

    # Once per process: it reads the weights. Afterwards it may be called by any number of threads.
    embedder = Embedder.load(options.checkpoint)
    print(f"pooled items: music {embedder.music_shape}, video {embedder.video_shape}")

    # One item is what extraction gives: (62, 512, 6, 4) for VGGish, (T, D) for everything else.
    rng = np.random.default_rng(0)
    takes_patches = len(embedder.music_shape) == 2
    music_item = (*embedder.music_shape, 6, 4) if takes_patches else (20, *embedder.music_shape)
    music = rng.random((8, *music_item), dtype=np.float32)
    video = rng.random((8, 60, *embedder.video_shape), dtype=np.float32)

    show("one item", *embedder([music[0], video[0]]))
    show("a batch: one more axis", *embedder([music, video]))
    show("one side only", *embedder([None, video]))
    show("items of unlike length: a list", *embedder([None, [video[0], video[1, :12]]]))
    pooled_music = music.mean(axis=(3, 4)) if takes_patches else music.mean(axis=1)
    show("pooled before", *embedder([pooled_music, video.mean(axis=1)], pooled=True))

    # Rows have length one, so the inner product is the similarity: higher fits better.
    embeddings = embedder([music, video])
    similarity = embeddings.video @ embeddings.music.T
    print(f"similarity of each video to each music: {similarity.shape}")

    if options.music is not None:
        show(f"audio of {options.music.name}", embedder.embed_music(options.music), None)
    if options.video is not None:
        show(f"frames of {options.video.name}", None, embedder.embed_video(options.video))


if __name__ == "__main__":
    main()
