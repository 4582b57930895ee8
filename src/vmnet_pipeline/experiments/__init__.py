"""Many trainings: comparison of variants over seeds, and search of hyperparameters."""
