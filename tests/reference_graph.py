"""Checkpoints of the reference and what its networks give: variables drawn here, written by TensorFlow's Saver.

As a program, `python reference_graph.py FOLDER STEP`, it writes FOLDER/{vggish,musicnn}/checkpoints/model.ckpt-STEP;
TensorFlow stays in that process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

WIDTHS = {"vggish": (512, 2048), "musicnn": (500, 2048)}


def draw_variables(variant: str, seed: int = 0, widths: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Everything that a checkpoint of the reference holds, also what no embedding depends on."""
    rng = np.random.default_rng(seed)
    music, video = widths or WIDTHS[variant]
    variables: dict[str, np.ndarray] = {}

    def add_linear(name: str, n_in: int, n_out: int) -> None:
        variables[f"{name}/W"] = rng.normal(0, np.sqrt(2 / n_in), (n_in, n_out))
        variables[f"{name}/b"] = rng.normal(0, 0.1, n_out)

    def add_bn(name: str, n: int) -> None:
        variables[f"{name}/gamma"] = rng.uniform(0.5, 1.5, n)
        variables[f"{name}/beta"] = rng.normal(0, 0.3, n)
        variables[f"{name}/moving_mean"] = rng.normal(0, 0.3, n)
        variables[f"{name}/moving_variance"] = rng.uniform(0.3, 2.0, n)

    for layer, n_in, n_out in (("fc1", music, 2048), ("fc2", 2048, 1024), ("fc5", 1024, 512)):
        add_linear(f"X_network/{layer}", n_in, n_out)
    layers = (("fc1", video, 2048), ("fc2", 2048, 16), ("fc3", 16, 16), ("fc4", 16, 16), ("fc5", 2048, 512))
    for layer, n_in, n_out in layers:
        add_linear(f"Y_network/{layer}", n_in, n_out)
    if variant == "vggish":
        for name, k in (("time_fusion0", 5), ("time_fusion2", 3)):
            variables[f"X_network/{name}/conv2d/kernel"] = rng.normal(0, 0.5, (k, 1, 1, 1))
            variables[f"X_network/{name}/conv2d/bias"] = rng.normal(0, 0.1, 1)
            add_bn(f"X_network/{name}/batch_normalization/BN", 1)
        add_bn("X_network/BN/BN", 512)
        add_bn("Y_network/BN/BN", 512)
    else:
        for side in "XY":
            add_bn(f"{side}_network/bn1/BN", 2048)
            add_bn(f"{side}_network/bn5/BN", 512)
    add_linear("dom_network/fc1", 512, 8)
    add_linear("dom_classifier/fc2", 8, 2)
    return {name: value.astype(np.float32) for name, value in variables.items()}


def write_checkpoints(folder: Path, step: int) -> None:
    """Write one checkpoint of each variant in a process of its own; the step is also the seed."""
    command = [sys.executable, __file__, str(folder), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def embed_music(variables: dict[str, np.ndarray], music: np.ndarray) -> np.ndarray:
    """(n, 62, C) or (n, D) to (n, 512), in numpy and double precision."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    x = music.astype(np.float64)
    has_filters = x.ndim == 3
    if has_filters:
        for name in ("time_fusion0", "time_fusion2"):
            x = _fuse_time(v, f"X_network/{name}", x)
        x = x.mean(axis=1)
    x = _linear(v, "X_network/fc1", x)
    x = np.maximum(x if has_filters else _bn(v, "X_network/bn1/BN", x), 0)
    x = np.maximum(_linear(v, "X_network/fc2", x), 0)
    return _finish(v, "X_network", "BN/BN" if has_filters else "bn5/BN", x)


def embed_video(variables: dict[str, np.ndarray], video: np.ndarray) -> np.ndarray:
    """(n, D) to (n, 512)."""
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    has_bn1 = "Y_network/bn1/BN/gamma" in v
    y = _linear(v, "Y_network/fc1", video.astype(np.float64))
    y = np.maximum(_bn(v, "Y_network/bn1/BN", y) if has_bn1 else y, 0)
    return _finish(v, "Y_network", "bn5/BN" if has_bn1 else "BN/BN", y)


def _linear(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _bn(v, name, x):
    scaled = (x - v[f"{name}/moving_mean"]) / np.sqrt(v[f"{name}/moving_variance"] + 1e-3)
    return scaled * v[f"{name}/gamma"] + v[f"{name}/beta"]


def _fuse_time(v, name, x):
    kernel = v[f"{name}/conv2d/kernel"][:, 0, 0, 0]
    pad = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (0, 0)))
    z = sum(weight * padded[:, k : k + x.shape[1]] for k, weight in enumerate(kernel)) + v[f"{name}/conv2d/bias"]
    z = np.maximum(_bn(v, f"{name}/batch_normalization/BN", z), 0)
    n = z.shape[1] // 3
    return z[:, : 3 * n].reshape(len(z), n, 3, -1).max(axis=2)


def _finish(v, network, bn, x):
    z = _bn(v, f"{network}/{bn}", _linear(v, f"{network}/fc5", x))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def _write_with_tensorflow(variant: str, folder: Path, step: int) -> None:
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        values = {tf1.get_variable(n, v.shape): v for n, v in draw_variables(variant, step).items()}
        for name in ("X_network/fc1/W/Adam", "X_network/fc1/W/Adam_1"):
            values[tf1.get_variable(name, (2, 3))] = np.full((2, 3), np.nan, np.float32)
        values[tf1.get_variable("beta1_power", ())] = np.float32(0.9)
        values[tf1.Variable(0, dtype=tf.int32)] = np.int32(20200)  # the reference gives its step no name
        for variable, value in values.items():
            variable.load(value, session)
        folder.mkdir(parents=True)
        tf1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=step)


if __name__ == "__main__":
    for variant in WIDTHS:
        _write_with_tensorflow(variant, Path(sys.argv[1]) / variant / "checkpoints", int(sys.argv[2]))
