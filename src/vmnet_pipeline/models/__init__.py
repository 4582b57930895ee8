"""Networks and losses: tensors in, tensors out. Importing the modules of this package imports torch."""
