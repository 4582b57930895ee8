"""Read YAML whose aliases do not make it much larger than it is written."""

from __future__ import annotations

from typing import Any

import yaml

MAX_NODES = 200_000
"""Values with all aliases written out; the longest real file has some hundreds."""


def load_yaml(text: str, loader_type: Any = yaml.SafeLoader) -> Any:
    """Content of a YAML document.

    Args:
        text: The document.
        loader_type: A safe loader.

    Raises:
        yaml.YAMLError: It is no YAML, or its aliases write out to more than `MAX_NODES` values.
    """
    loader = loader_type(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MAX_NODES:
            raise yaml.YAMLError(f"its aliases write out to more than {MAX_NODES} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node, those of each alias counted again; one that has itself in it has no end."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_NODES + 1  # until it is known
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    count = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_count(part, known) for part in parts)
    known[id(node)] = min(count, MAX_NODES + 1)
    return known[id(node)]
