"""Training of two-tower networks on packed pairs; importing this package imports torch."""

from vmnet_pipeline.training.loop import TrainingResult, train_model
from vmnet_pipeline.training.state import clear_state

__all__ = ["TrainingResult", "clear_state", "train_model"]
