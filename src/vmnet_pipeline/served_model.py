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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.models.towers import VMNet

SIDES = ("music", "video")


class CheckpointModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined,unused-ignore]
    """Pooled features of music, of video, or of both to embeddings in the shared space."""

    _model: VMNet

    def load_context(self, context: Any) -> None:
        """Read the checkpoint that was logged with the model."""
        from vmnet_pipeline.checkpoints import build_from_checkpoint, load_checkpoint

        checkpoint = load_checkpoint(Path(context.artifacts["checkpoint"]))
        self._shapes = {side: tuple(checkpoint.model_config[f"{side}_shape"]) for side in SIDES}
        self._model = build_from_checkpoint(checkpoint)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Embed one or both sides.

        Args:
            context: Not used.
            model_input: Column `music`, column `video`, or both; each cell one item's pooled feature as nested lists.
            params: Not used.

        Returns:
            A column `music_embedding` or `video_embedding` per column given; each cell a unit vector.

        Raises:
            MlflowException: Neither column is given, or a feature has another shape than the checkpoint takes.
        """
        from vmnet_pipeline.models.embedding import embed_arrays

        given = [side for side in SIDES if side in model_input.columns and model_input[side].notna().all()]
        if not given:
            raise MlflowException.invalid_parameter_value(
                "give a column `music`, a column `video`, or both, with a feature in every row"
            )
        embedded = {}
        for side in given:
            features = _stack_features(list(model_input[side]), self._shapes[side], side)
            music, video = (features, None) if side == "music" else (None, features)
            embeddings = embed_arrays(self._model, music=music, video=video)
            embedded[f"{side}_embedding"] = list(embeddings.astype(np.float64))
        return pd.DataFrame(embedded, index=model_input.index)


def _stack_features(cells: Sequence[Any], shape: tuple[int, ...], side: str) -> np.ndarray:
    # MLflow hands nested lists over as arrays of arrays, which have to be taken apart before they can be stacked.
    rows = [np.asarray([np.asarray(part, np.float32) for part in cell], np.float32) for cell in cells]
    wrong = next((row.shape for row in rows if row.shape != shape), None)
    if wrong is not None:
        raise MlflowException.invalid_parameter_value(
            f"a {side} feature has shape {wrong}; this checkpoint takes {shape}"
        )
    return np.stack(rows)


mlflow.models.set_model(CheckpointModel())
