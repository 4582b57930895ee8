"""Runs in MLflow, event files for TensorBoard, and the model that MLflow serves."""
