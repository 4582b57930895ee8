"""Run the graph that the musicnn package ships, on patches. A program of its own: it needs TensorFlow's old graph mode.

Usage: python tests/golden/original_musicnn.py MODEL_DIR PATCHES.npy OUT.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def run_original(model_dir: Path, patches: np.ndarray) -> dict[str, np.ndarray]:
    """Layer name -> activations of (n, 187, 96) log-mel patches."""
    import tensorflow as tf

    v1 = tf.compat.v1
    meta = v1.MetaGraphDef()
    meta.ParseFromString((model_dir / ".meta").read_bytes())
    for node in meta.graph_def.node:
        node.attr.pop("_output_shapes", None)  # written by an old version, refused by new ones
    graph = tf.Graph()
    with graph.as_default(), v1.Session() as session:
        v1.train.import_meta_graph(meta).restore(session, f"{model_dir}/")
        fetches = {"taggram": graph.get_tensor_by_name("model/Sigmoid:0")}
        if model_dir.name.endswith("_vgg"):
            fetches["penultimate"] = graph.get_tensor_by_name("model/max_pooling2d_4/MaxPool:0")
        else:
            fetches["penultimate"] = graph.get_operation_by_name("model/dense_1/MatMul").inputs[0]
            fetches["max_pool"] = graph.get_tensor_by_name("model/Max:0")
            fetches["mean_pool"] = graph.get_tensor_by_name("model/moments/Squeeze:0")
        feeds = {"model/Placeholder:0": patches, "model/Placeholder_2:0": False}
        return {name: value.reshape(len(patches), -1) for name, value in session.run(fetches, feeds).items()}


if __name__ == "__main__":
    np.savez(sys.argv[3], **run_original(Path(sys.argv[1]), np.load(sys.argv[2])))
