"""Training of two-tower networks on packed pairs; importing this package imports torch."""

from vmnet_pipeline.training.loop import StepCallback, TrainingResult, train_model

__all__ = ["StepCallback", "TrainingResult", "train_model"]
