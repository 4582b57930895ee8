"""Checkpoints of the original code and what its networks give: variables drawn here, written by TensorFlow's Saver.

As a program, `python reference_graph.py FOLDER STEP NAME...`, it writes FOLDER/NAME/checkpoints/model.ckpt-STEP for
each name in `FORMS`; TensorFlow stays in that process. Names, shapes and slots are those of a training of the original.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTHS = {"vggish": (512, 2048), "musicnn": (500, 2048), "plain": (1140, 1024)}
HIDDEN = (2048, 1024, 1024, 512)


@dataclass(frozen=True)
class Form:
    """One way to set the original up, and to store what it has learned."""

    variant: str
    music_layers: int = 3
    video_layers: int = 2
    linear: bool = False
    widths: tuple[int, int] | None = None
    nested: bool = False  # batch norms in a scope BN of their own
    slots: bool = True
    graph: bool = False  # operations of the towers in the .meta file

    @property
    def layers(self) -> dict[str, int]:
        return {"X": self.music_layers, "Y": self.video_layers}


FORMS = {
    "vggish": Form("vggish"),
    "musicnn": Form("musicnn"),
    "nested_vggish": Form("vggish", nested=True, slots=False),
    "nested_musicnn": Form("musicnn", nested=True, slots=False),
    "deep_musicnn": Form("musicnn", 5, 4),
    "flat_musicnn": Form("musicnn", 1, 1),
    "linear_musicnn": Form("musicnn", 4, 3, linear=True),
    "linear_vggish": Form("vggish", 2, 5, linear=True, graph=True),
    "plain": Form("plain", linear=True, graph=True),
}


def draw_variables(form: Form | str, seed: int = 0) -> dict[str, np.ndarray]:
    """Everything that a checkpoint of the original holds, also what no embedding depends on, but not Adam's slots."""
    form = FORMS[form] if isinstance(form, str) else form
    rng = np.random.default_rng(seed)
    widths = dict(zip("XY", form.widths or WIDTHS[form.variant], strict=True))
    variables: dict[str, np.ndarray] = {}

    def add_linear(name: str, n_in: int, n_out: int, parts: tuple[str, str] = ("W", "b")) -> None:
        variables[f"{name}/{parts[0]}"] = rng.normal(0, np.sqrt(2 / n_in), (n_in, n_out))
        variables[f"{name}/{parts[1]}"] = rng.normal(0, 0.1, n_out)

    def add_bn(name: str, n: int) -> None:
        name = f"{name}/BN" if form.nested and name[:2] in ("X_", "Y_") else name
        variables[f"{name}/gamma"] = rng.uniform(0.5, 1.5, n)
        variables[f"{name}/beta"] = rng.normal(0, 0.3, n) if n > 1 else rng.uniform(0.1, 0.5, n)  # lets ReLU through
        variables[f"{name}/moving_mean"] = rng.normal(0, 0.3, n)
        variables[f"{name}/moving_variance"] = rng.uniform(0.3, 2.0, n)

    for side, n_layers in form.layers.items():
        dims = (widths[side], *HIDDEN)
        n_there = 2 if (side, n_layers) == ("X", 3) else 4  # the original leaves out fc3 and fc4 of music then
        for k in range(1, n_there + 1):
            add_linear(f"{side}_network/fc{k}", dims[k - 1], dims[k])
        add_linear(f"{side}_network/fc5", dims[n_layers - 1], 512)
        if form.variant == "musicnn":
            add_bn(f"{side}_network/bn1", 2048)
        add_bn(f"{side}_network/{last_norm(form)}", 512)
    if form.variant == "vggish":
        for name, k in (("time_fusion0", 5), ("time_fusion2", 3)):
            variables[f"X_network/{name}/conv2d/kernel"] = rng.uniform(0.1, 0.8, (k, 1, 1, 1))
            variables[f"X_network/{name}/conv2d/bias"] = rng.normal(0, 0.1, 1)
            add_bn(f"X_network/{name}/batch_normalization", 1)
    for layer, n_out in (("dom_fc1", 512), ("dom_fc2", 512), ("dom_logit", 1)):
        add_linear(layer, 512, n_out, ("weights", "biases"))
    for layer in ("dom_bn1", "dom_bn2") if form.variant == "musicnn" else ():
        add_bn(layer, 512)
    return {name: value.astype(np.float32) for name, value in variables.items()}


def last_norm(form: Form) -> str:
    return "bn5" if form.variant == "musicnn" else "BN"


def list_trained(form: Form) -> list[str]:
    """Variables that Adam has slots of: those on the way to the embeddings, but moving averages."""
    unused = [f"{side}_network/fc{k}/" for side, n in form.layers.items() for k in range(n, 5)]
    unused += [f"{side}_network/bn1/" for side, n in form.layers.items() if form.linear or n == 1]
    return [
        name
        for name in draw_variables(form)
        if name[:2] in ("X_", "Y_") and "/moving_" not in name and not name.startswith(tuple(unused))
    ]


def draw_slots(form: Form, seed: int = 0) -> dict[str, np.ndarray]:
    """First and second moment of every trained variable."""
    rng, variables = np.random.default_rng(seed + 1), draw_variables(form, seed)
    return {
        f"{name}/{slot}": np.asarray(rng.random(variables[name].shape) * scale, np.float32)
        for name in list_trained(form)
        for slot, scale in (("Adam", 1e-3), ("Adam_1", 1e-5))
    }


def write_checkpoints(folder: Path, step: int, *names: str) -> None:
    """Write one checkpoint of each form in a process of its own; the step is also the seed."""
    command = [sys.executable, __file__, str(folder), str(step), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def embed_music(form: Form | str, variables: dict[str, np.ndarray], music: np.ndarray) -> np.ndarray:
    """(n, 62, C) or (n, D) to (n, 512), in numpy and double precision."""
    form = FORMS[form] if isinstance(form, str) else form
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    x = music.astype(np.float64)
    if form.variant == "vggish":
        for name in ("time_fusion0", "time_fusion2"):
            x = _fuse_time(v, f"X_network/{name}", x)
        x = x.mean(axis=1)
    return _run_layers(v, "X_network", form, form.music_layers, x)


def embed_video(form: Form | str, variables: dict[str, np.ndarray], video: np.ndarray) -> np.ndarray:
    """(n, D) to (n, 512)."""
    form = FORMS[form] if isinstance(form, str) else form
    v = {name: value.astype(np.float64) for name, value in variables.items()}
    return _run_layers(v, "Y_network", form, form.video_layers, video.astype(np.float64))


def _run_layers(v, network, form, n_layers, x):
    for k in range(1, n_layers):
        x = _linear(v, f"{network}/fc{k}", x)
        if form.linear:
            continue
        if k == 1 and form.variant == "musicnn":
            x = _bn(v, f"{network}/bn1", x)
        x = np.maximum(x, 0)
    z = _bn(v, f"{network}/{last_norm(form)}", _linear(v, f"{network}/fc5", x))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def _linear(v, name, x):
    return x @ v[f"{name}/W"] + v[f"{name}/b"]


def _bn(v, name, x):
    name = name if f"{name}/gamma" in v else f"{name}/BN"
    scaled = (x - v[f"{name}/moving_mean"]) / np.sqrt(v[f"{name}/moving_variance"] + 1e-3)
    return scaled * v[f"{name}/gamma"] + v[f"{name}/beta"]


def _fuse_time(v, name, x):
    kernel = v[f"{name}/conv2d/kernel"][:, 0, 0, 0]
    pad = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (0, 0)))
    z = sum(weight * padded[:, k : k + x.shape[1]] for k, weight in enumerate(kernel)) + v[f"{name}/conv2d/bias"]
    z = np.maximum(_bn(v, f"{name}/batch_normalization", z), 0)
    n = z.shape[1] // 3
    return z[:, : 3 * n].reshape(len(z), n, 3, -1).max(axis=2)


def _write_with_tensorflow(form: Form, folder: Path, step: int) -> None:
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        drawn = draw_variables(form, step)
        if form.slots:
            drawn |= draw_slots(form, step)
        values = {tf1.get_variable(n, v.shape): v for n, v in drawn.items()}
        values[tf1.get_variable("beta1_power", ())] = np.float32(0.9 ** (step + 2))
        values[tf1.get_variable("beta2_power", ())] = np.float32(0.999 ** (step + 2))
        values[tf1.Variable(0, dtype=tf.int32, trainable=False)] = np.int32(step + 1)  # it has no name there
        if form.graph:
            _add_operations(tf1, form)
        for variable, value in values.items():
            variable.load(value, session)
        folder.mkdir(parents=True)
        tf1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=step)
        listed = sorted((variable.op.name, list(variable.shape.as_list())) for variable in values)
        (folder.parent / "names.json").write_text(json.dumps(listed))


def _add_operations(tf1, form):
    """The dropout of each layer, named as the original names it."""
    for side in form.layers:
        with tf1.variable_scope(f"{side}_network", reuse=True):
            bias = tf1.get_variable("fc1/b", (2048,))
            relu = tf1.nn.relu(bias, name="relu1")
            if form.linear:
                tf1.nn.dropout(bias, keep_prob=0.9, name="fc1_drop")
            else:
                tf1.nn.dropout(relu, keep_prob=0.9, name="relu1_drop")


if __name__ == "__main__":
    for name in sys.argv[3:]:
        _write_with_tensorflow(FORMS[name], Path(sys.argv[1]) / name / "checkpoints", int(sys.argv[2]))
