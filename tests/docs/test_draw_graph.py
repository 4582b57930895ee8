"""The layout of the drawings: edges go down, boxes keep apart, lines that need not cross do not."""

from __future__ import annotations

import random
import runpy
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from doc_pages import DOCS

DRAWING = runpy.run_path(str(DOCS / "draw_graph.py"))


def draw_edges(seed: int, n: int = 14) -> tuple[list[str], list[tuple[str, str]]]:
    rng = random.Random(seed)
    names = [f"space.node{k}" for k in range(n)]
    pairs = [(names[i], names[j]) for j in range(n) for i in range(j) if rng.random() < 0.2]
    return names, pairs


@pytest.mark.parametrize("seed", range(5))
def test_every_edge_goes_down(seed):
    names, edges = draw_edges(seed)
    layer_of = DRAWING["assign_layers"](names, edges)
    assert set(layer_of) == set(names)
    assert min(layer_of.values()) == 0
    assert all(layer_of[start] < layer_of[end] for start, end in edges)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_of_a_layer_keep_apart_and_their_order(seed):
    names, edges = draw_edges(seed)
    layer_of = DRAWING["assign_layers"](names, edges)
    links = [(start, end) for start, end in edges if layer_of[end] - layer_of[start] == 1]
    layers = DRAWING["order_layers"](layer_of, links)
    widths = {name: 40.0 + 5 * k for k, name in enumerate(names)}
    x_of = DRAWING["place_boxes"](layers, links, widths)
    for layer in layers:
        for left, right in pairwise(layer):
            assert x_of[right] - x_of[left] >= (widths[left] + widths[right]) / 2 + DRAWING["GAP_PX"] - 1e-6
    assert min(x_of[name] - widths[name] / 2 for name in names) == pytest.approx(DRAWING["MARGIN_PX"])


def test_lines_that_need_not_cross_do_not():
    edges = [("a", "z"), ("b", "y"), ("c", "x")]
    layers = DRAWING["order_layers"]({name: int(name in "xyz") for name in "abcxyz"}, edges)
    assert [layers[0].index(start) for start, _ in edges] == [layers[1].index(end) for _, end in edges]


def test_a_drawing_holds_every_box_within_its_frame():
    names, edges = draw_edges(1)
    boxes = [DRAWING["Box"](name, is_step=k % 2 == 0) for k, name in enumerate(names)]
    root = ElementTree.fromstring(DRAWING["draw_graph"](boxes, edges))  # noqa: S314
    space = "{http://www.w3.org/2000/svg}"
    frames = [part.find(f"{space}rect") for part in root.findall(f"{space}g")]
    assert len(frames) == len(names)
    for frame in frames:
        x, width = float(frame.get("x")), float(frame.get("width"))
        assert 0 < x < x + width < float(root.get("width"))
    assert sum(part.get("marker-end") is not None for part in root.findall(f"{space}path")) == len(edges)
