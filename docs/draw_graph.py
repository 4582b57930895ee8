"""Drawings of directed graphs as SVG: layers from top to bottom, few crossings, nothing to install.

The layout is that of Sugiyama in its simplest form: longest-path layers, invisible points where an edge passes a layer,
orders by the mean place of neighbours, then places that give way to each other. The result depends on the graph only.

Source: K. Sugiyama, S. Tagawa, M. Toda, IEEE Trans. SMC 11 (1981).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import fsum

CHARACTER_PX = 6.9
BOX_HEIGHT_PX = 38
LAYER_HEIGHT_PX = 74
GAP_PX = 18
MARGIN_PX = 12
N_SWEEPS = 40
MOST_SOURCES = 4
STRAIGHTNESS = 7  # how much more an edge is pulled straight between the layers that it passes

STYLE = """text{font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;text-anchor:middle;fill:#1b1b1b}
.space{font-size:10px;fill:#555}
.step rect{fill:#cfe3f5;stroke:#1f5f99}
.data rect{fill:#fff;stroke:#777}
path{fill:none;stroke:#8a8a8a;stroke-width:1.2}
#tip path{fill:#8a8a8a;stroke:none}"""


@dataclass(frozen=True)
class Box:
    """A vertex with its text.

    Attributes:
        name: Unique name; the part before its last dot is written small above the rest.
        is_step: Whether it is something done; otherwise it is data.
    """

    name: str
    is_step: bool = False

    @property
    def lines(self) -> tuple[str, str]:
        """Namespace, perhaps empty, and name."""
        space, _, name = self.name.rpartition(".")
        return space, name

    @property
    def width_px(self) -> float:
        """Wide enough for the text."""
        return max(64.0, max(map(len, self.lines)) * CHARACTER_PX + 20)


Edge = tuple[str, str]


def draw_graph(boxes: list[Box], edges: list[Edge]) -> str:
    """The SVG of an acyclic graph.

    Args:
        boxes: The vertices; their order decides where nothing else does.
        edges: Pairs of names, from and to.
    """
    by_name = {box.name: box for box in boxes}
    layer_of = assign_layers(list(by_name), edges)
    chains = [_split_edge(edge, layer_of) for edge in edges]
    widths = {name: box.width_px for name, box in by_name.items()}
    for chain in chains:
        for place, point in enumerate(chain[1:-1], start=1):
            layer_of[point], widths[point] = layer_of[chain[0]] + place, 4.0
    links = [pair for chain in chains for pair in pairwise(chain)]
    layers = order_layers(layer_of, links)
    long_links = [pair for chain in chains for pair in pairwise(chain[1:-1])]
    x_of = place_boxes(layers, links + STRAIGHTNESS * long_links, widths)
    return _write_svg(by_name, layer_of, x_of, chains)


def assign_layers(names: list[str], edges: list[Edge]) -> dict[str, int]:
    """Layer of every vertex: the longest path to it; vertices without predecessors go just above their first use."""
    before, after = _neighbours(edges)
    layer_of: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in layer_of:
            layer_of[name] = max((depth(other) + 1 for other in before[name]), default=0)
        return layer_of[name]

    for name in names:
        depth(name)
    sources = [name for name in names if not before[name] and after[name]]
    for name in sources:
        layer_of[name] = min(layer_of[other] for other in after[name]) - 1
    return _stagger(sources, layer_of)


def _stagger(sources: list[str], layer_of: dict[str, int]) -> dict[str, int]:
    """Move each second one of many sources in a layer to the layer above, which keeps the drawing narrow."""
    for layer in sorted({layer_of[name] for name in sources}):
        row = [name for name in sources if layer_of[name] == layer]
        if len(row) > MOST_SOURCES:
            layer_of.update(dict.fromkeys(row[1::2], layer - 1))
    top = min(layer_of.values())
    return {name: layer - top for name, layer in layer_of.items()}


def order_layers(layer_of: dict[str, int], links: list[Edge]) -> list[list[str]]:
    """Names of every layer from left to right, sorted by the mean place of their neighbours, down and up in turn."""
    before, after = _neighbours(links)
    layers: list[list[str]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for name, layer in layer_of.items():
        layers[layer].append(name)
    best, fewest = [list(layer) for layer in layers], _count_crossings(layers, after)
    for sweep in range(N_SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            place = {name: k for row in layers for k, name in enumerate(row)}
            layer.sort(key=lambda name: _mean([place[n] for n in neighbours[name]], place[name]))
        crossings = _count_crossings(layers, after)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def place_boxes(layers: list[list[str]], links: list[Edge], widths: dict[str, float]) -> dict[str, float]:
    """Centre of every box in pixels: near its neighbours, without touching others of its layer."""
    before, after = _neighbours(links)
    x_of: dict[str, float] = {}
    for layer in layers:
        x = 0.0
        for name in layer:
            x_of[name] = x + widths[name] / 2
            x += widths[name] + GAP_PX
        for name in layer:
            x_of[name] -= x / 2
    for sweep in range(N_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {n: _mean([x_of[m] for m in (*before[n], *after[n])], x_of[n]) for n in layer}
            x_of.update(_give_way(layer, wanted, widths))
    left = min(x_of[name] - widths[name] / 2 for name in x_of)
    return {name: x - left + MARGIN_PX for name, x in x_of.items()}


def _give_way(layer: list[str], wanted: dict[str, float], widths: dict[str, float]) -> dict[str, float]:
    """Places nearest to those wanted, in the sense of least squares, that keep the order and the gaps."""
    offsets, total = [], 0.0
    for k, name in enumerate(layer):
        total += (widths[layer[k - 1]] + widths[name]) / 2 + GAP_PX if k else 0.0
        offsets.append(total)
    blocks: list[tuple[float, int]] = []  # mean of what its boxes want, number of boxes
    for name, offset in zip(layer, offsets, strict=True):
        mean, count = wanted[name] - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, n = blocks.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        blocks.append((mean, count))
    shifts = [mean for mean, count in blocks for _ in range(count)]
    return {name: shift + offset for name, shift, offset in zip(layer, shifts, offsets, strict=True)}


def _neighbours(edges: list[Edge]) -> tuple[defaultdict[str, list[str]], defaultdict[str, list[str]]]:
    before: defaultdict[str, list[str]] = defaultdict(list)
    after: defaultdict[str, list[str]] = defaultdict(list)
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    return before, after


def _split_edge(edge: Edge, layer_of: dict[str, int]) -> list[str]:
    """An edge as a chain of names, with an invisible one in every layer that it passes."""
    start, end = edge
    points = [f"{start}>{end}>{layer}" for layer in range(layer_of[start] + 1, layer_of[end])]
    return [start, *points, end]


def _count_crossings(layers: list[list[str]], after: defaultdict[str, list[str]]) -> int:
    crossings = 0
    for upper, lower in pairwise(layers):
        place = {name: k for k, name in enumerate(lower)}
        ends = [sorted(place[n] for n in after[name]) for name in upper]
        flat = [end for row in ends for end in row]
        crossings += sum(a > b for k, a in enumerate(flat) for b in flat[k + 1 :])
    return crossings


def _mean(values: list[float] | list[int], otherwise: float) -> float:
    return fsum(values) / len(values) if values else otherwise  # `sum` rounds otherwise from Python 3.12 on


def _write_svg(
    by_name: dict[str, Box], layer_of: dict[str, int], x_of: dict[str, float], chains: list[list[str]]
) -> str:
    half = {name: box.width_px / 2 for name, box in by_name.items()}
    width = max(x + half.get(name, 0.0) for name, x in x_of.items()) + MARGIN_PX
    height = max(layer_of.values()) * LAYER_HEIGHT_PX + BOX_HEIGHT_PX + 2 * MARGIN_PX
    centre = {name: (x, MARGIN_PX + BOX_HEIGHT_PX / 2 + layer_of[name] * LAYER_HEIGHT_PX) for name, x in x_of.items()}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" fill="#fbfbfb"/>',
        *(_write_edge(chain, centre) for chain in chains),
        *(_write_box(box, *centre[name]) for name, box in by_name.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _write_edge(chain: list[str], centre: dict[str, tuple[float, float]]) -> str:
    half = BOX_HEIGHT_PX / 2
    x, y = centre[chain[0]]
    y += half
    path = [f"M{x:.1f} {y:.1f}"]
    for name in chain[1:]:
        next_x, next_y = centre[name]
        top = next_y - half
        middle = (y + top) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {top:.1f}")
        x, y = next_x, top
        if name != chain[-1]:  # straight through the layer, between its boxes
            y = next_y + half
            path.append(f"L{x:.1f} {y:.1f}")
    return f'<path d="{"".join(path)}" marker-end="url(#tip)"/>'


def _write_box(box: Box, x: float, y: float) -> str:
    space, name = box.lines
    left, top = x - box.width_px / 2, y - BOX_HEIGHT_PX / 2
    kind, radius = ("step", 3) if box.is_step else ("data", 19)
    rect = f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width_px:.1f}" height="{BOX_HEIGHT_PX}" rx="{radius}"/>'
    small = f'<text class="space" x="{x:.1f}" y="{y - 5:.1f}">{escape(space)}</text>' if space else ""
    text = f'<text x="{x:.1f}" y="{y + (10 if space else 4):.1f}">{escape(name)}</text>'
    return f'<g class="{kind}">{rect}{small}{text}</g>'
