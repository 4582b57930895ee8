"""The networks of the backends, in torch. The only modules of this folder that import torch at their top.

Backends import them inside `load`, so that naming a backend stays cheap.
"""
