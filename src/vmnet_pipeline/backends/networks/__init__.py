"""The networks of the backends. The only modules of `backends` that import torch or Keras at their top.

Backends import them inside `build_network`, so that naming a backend stays cheap.
"""
