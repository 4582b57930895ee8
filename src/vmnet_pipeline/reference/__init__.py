"""Data and checkpoints in the layout of the reference implementation of VM-NET."""
