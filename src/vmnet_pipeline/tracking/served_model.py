"""A checkpoint as an MLflow model, for `mlflow models serve` and `mlflow.pyfunc.load_model`.

MLflow runs this file when it loads the model ("models from code"), so nothing is pickled. This module imports mlflow
and is imported by nothing else of the project.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import FeatureArray, Sequences


class CheckpointModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined,unused-ignore]
    """Embed features of music, of video, or of both in the shared space."""

    _model: VMNet

    def load_context(self, context: Any) -> None:
        """Read the checkpoint that was logged with the model."""
        from vmnet_pipeline.models.checkpoints import build_from_checkpoint, load_checkpoint
        from vmnet_pipeline.params import SEQUENCE_TOWERS

        checkpoint = load_checkpoint(Path(context.artifacts["checkpoint"]))
        self._shapes = {side: tuple(checkpoint.model_config[f"{side}_shape"]) for side in SIDES}
        self._takes_sequences = {side: checkpoint.model_config[f"{side}_tower"] in SEQUENCE_TOWERS for side in SIDES}
        self._model = build_from_checkpoint(checkpoint)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Embed one or both sides.

        Args:
            context: Not used.
            model_input: Column `music`, column `video`, or both; each cell one item as nested lists: its pooled
                feature, or (T, D) of any T where the tower takes sequences.
            params: Not used.

        Returns:
            A column `music_embedding` or `video_embedding` per column given; each cell a unit vector.

        Raises:
            MlflowException: Neither column is given, one has a gap, or a feature has another shape than the checkpoint
                takes.
        """
        from vmnet_pipeline.models.embed import embed_arrays

        given = [side for side in SIDES if side in model_input.columns and model_input[side].notna().any()]
        if not given or model_input[given].isna().any(axis=None):
            raise MlflowException.invalid_parameter_value(
                "give a column `music`, a column `video`, or both, with a feature in every row"
            )
        embedded = {}
        for side in given:
            # MLflow passes nested lists as arrays of arrays, which must be unpacked before they can be stacked.
            rows = [
                np.asarray([np.asarray(part, np.float32) for part in cell], np.float32) for cell in model_input[side]
            ]
            stack = _stack_sequences if self._takes_sequences[side] else _stack_features
            features: FeatureArray = stack(rows, self._shapes[side], side)
            music, video = (features, None) if side == "music" else (None, features)
            embeddings = embed_arrays(self._model, music=music, video=video)
            embedded[f"{side}_embedding"] = list(embeddings.astype(np.float64))
        return pd.DataFrame(embedded, index=model_input.index)


def _stack_sequences(rows: list[np.ndarray], shape: tuple[int, ...], side: str) -> Sequences:
    from vmnet_pipeline.pairs.sequences import stack_sequences

    max_steps, width = shape
    wrong = next((row.shape for row in rows if row.shape != (len(row), width) or not len(row)), None)
    if wrong is not None:
        raise MlflowException.invalid_parameter_value(
            f"a {side} feature has shape {wrong}; this checkpoint takes sequences (T, {width})"
        )
    return stack_sequences(rows, max_steps)


def _stack_features(rows: list[np.ndarray], shape: tuple[int, ...], side: str) -> np.ndarray:
    wrong = next((row.shape for row in rows if row.shape != shape), None)
    if wrong is not None:
        raise MlflowException.invalid_parameter_value(
            f"a {side} feature has shape {wrong}; this checkpoint takes {shape}"
        )
    return np.stack(rows)


mlflow.models.set_model(CheckpointModel())
