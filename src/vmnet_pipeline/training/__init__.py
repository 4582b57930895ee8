"""Training of two-tower networks on packed pairs; importing this package imports torch."""

from vmnet_pipeline.training.setup import train_model
from vmnet_pipeline.training.trainer import TrainingResult

__all__ = ["TrainingResult", "train_model"]
