"""EfficientNet B0-B7 from `keras.applications`, without its own preprocessing.

Keras puts a rescaling and a normalisation before the network, and a second rescaling by 1 / sqrt(std) only where it
loads the ImageNet weights by itself. All of that is cut off here, and one normalisation put in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vmnet_pipeline.errors import ParameterError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

FIRST_LAYER = "stem_conv_pad"  # what comes before it is preprocessing


def build_network(model: str, size_px: int, path: Path | None, seed: int) -> Any:
    """A member of the family up to the mean of its head.

    Args:
        model: `b0` to `b7`.
        size_px: Side of the pictures.
        path: Published HDF5 file without top; None for random weights.
        seed: Seed of random weights.

    Returns:
        Keras model from (B, size_px, size_px, 3) normalised RGB to (B, D).

    Raises:
        WeightsError: The file does not fit the network, or is damaged.
        ParameterError: Keras is set up for another framework than tensorflow.
    """
    if keras.config.backend() != "tensorflow" or keras.config.image_data_format() != "channels_last":
        raise ParameterError(
            f"Keras is set to {keras.config.backend()}, {keras.config.image_data_format()}: EfficientNet needs "
            "tensorflow and channels_last; unset KERAS_BACKEND and correct ~/.keras/keras.json"
        )
    factory = getattr(keras.applications, f"EfficientNet{model.upper()}")
    whole = factory(include_top=False, weights=None, pooling="avg", input_shape=(size_px, size_px, 3))
    if path is None:
        draw_weights(whole, seed)
    else:
        _load_weights(whole, path)
    return keras.Model(whole.get_layer(FIRST_LAYER).input, whole.output)


def normalize_inputs(network: Any, size_px: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """The network behind (x - mean) / std per colour; takes (B, size_px, size_px, 3) RGB in 0-255."""
    pictures = keras.Input((size_px, size_px, 3))
    normalised = keras.layers.Normalization(mean=mean, variance=[value**2 for value in std])(pictures)
    return keras.Model(pictures, network(normalised))


def draw_weights(network: Any, seed: int) -> None:
    """Random weights that depend on the seed only, batch norms fitted to random pictures.

    Without the fit, signals die out or explode over the depth and every picture gives the same feature.
    """
    rng = np.random.default_rng(seed)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.Conv2D):
            layer.set_weights([_draw_array(rng, layer, array) for array in layer.get_weights()])
    for layer in norms:
        n = layer.gamma.shape[0]
        gain = 0.3 if layer.name.endswith("project_bn") else 1.0  # small on the residual branches, as after training
        layer.set_weights([gain * rng.uniform(0.5, 1.0, n), rng.normal(0, 0.1, n), np.zeros(n), np.ones(n)])
    settings = [(layer, "momentum", 0.0) for layer in norms] + [(layer, "rate", 0.0) for layer in drops]
    kept = [(layer, name, getattr(layer, name)) for layer, name, _ in settings]
    for layer, name, value in settings:
        setattr(layer, name, value)
    body = keras.Model(network.get_layer(FIRST_LAYER).input, network.output)
    body(_draw_pictures(rng, network.input_shape[1]), training=True)
    for layer, name, value in kept:
        setattr(layer, name, value)


def _draw_array(rng: np.random.Generator, layer: Any, array: np.ndarray) -> np.ndarray:
    """He normal; biases are zero."""
    if array.ndim == 1:
        return np.zeros_like(array)
    fan_in = np.prod(array.shape[:2]) * (1 if isinstance(layer, keras.layers.DepthwiseConv2D) else array.shape[2])
    return rng.normal(0, np.sqrt(2 / fan_in), array.shape)


def _draw_pictures(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """(4, size_px, size_px, 3) float32: random patches of several sizes, of mean 0 and deviation about 1."""
    pictures = np.zeros((4, size_px, size_px, 3))
    for n_cells in (2, 8, 32, size_px):
        index = np.arange(size_px) * n_cells // size_px
        pictures += 0.5 * rng.standard_normal((4, n_cells, n_cells, 3))[:, index][:, :, index]
    return pictures.astype(np.float32)


def _load_weights(network: Any, path: Path) -> None:
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        message = f"{path}: does not fit the network or is damaged ({error}); delete it and fetch it again"
        raise WeightsError(message) from error
