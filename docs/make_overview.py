"""Draw docs/images/overview.svg, from media to ranks: `python docs/make_overview.py`. All shapes are computed here."""

from __future__ import annotations

import math
from pathlib import Path

TARGET = Path(__file__).parent / "images" / "overview.svg"

WIDTH, HEIGHT = 1120, 310
MUSIC, VIDEO, INK, PALE = "#b4510d", "#1f5f99", "#1b1b1b", "#5c5c5c"

STYLE = f"""text{{font:16px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:{INK};text-anchor:middle}}
.small{{font-size:14.5px;fill:{PALE}}}
.head{{font-weight:600}}"""


def write(x: float, y: float, text: str, kind: str = "") -> str:
    """A line of text around x."""
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{text}</text>'


def draw_wave(x: float, y: float, width: float, height: float) -> str:
    """Audio: bars of an amplitude that swells and fades."""
    n = 26
    bars = []
    for k in range(n):
        share = abs(math.sin(0.9 * k) * math.sin(0.31 * k + 0.6)) * 0.85 + 0.12
        left, half = x + k * width / n, share * height / 2
        bars.append(f"M{left:.1f} {y - half:.1f}V{y + half:.1f}")
    return f'<path d="{"".join(bars)}" stroke="{MUSIC}" stroke-width="3" stroke-linecap="round"/>'


def draw_film(x: float, y: float, width: float, height: float) -> str:
    """A film: four frames, a sun that moves over a hill."""
    parts = []
    step = width / 4
    for k in range(4):
        left = x + k * step
        sun_x, sun_y = left + step * (0.2 + 0.18 * k), y - height * (0.05 + 0.08 * k)
        hill = f"M{left + 2:.1f} {y + height / 2 - 2:.1f}Q{left + step / 2:.1f} {y - 6:.1f} {left + step - 4:.1f} {y + height / 2 - 2:.1f}Z"
        parts += [
            f'<rect x="{left + 1:.1f}" y="{y - height / 2:.1f}" width="{step - 4:.1f}" height="{height}" rx="3" fill="#e3eefa" stroke="{VIDEO}"/>',
            f'<circle cx="{sun_x:.1f}" cy="{sun_y:.1f}" r="4.5" fill="#e8b33c"/>',
            f'<path d="{hill}" fill="{VIDEO}" fill-opacity=".55"/>',
        ]
    return "".join(parts)


def draw_features(x: float, y: float, colour: str, rows: int, columns: int) -> str:
    """A feature: a grid of squares, darker and lighter."""
    size = 13
    parts = []
    for r in range(rows):
        for c in range(columns):
            value = 0.15 + 0.75 * abs(math.sin(1.7 * r + 2.3 * c + rows))
            left, top = x + (c - columns / 2) * size, y + (r - rows / 2) * size
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{size - 2}" height="{size - 2}" rx="2" fill="{colour}" fill-opacity="{value:.2f}"/>'
            )
    return "".join(parts)


def draw_tower(x: float, y: float, colour: str) -> str:
    """A tower: layers that grow narrower."""
    parts = []
    for k, height in enumerate((84, 64, 40)):
        parts.append(
            f'<rect x="{x - 32 + 24 * k}" y="{y - height / 2}" width="15" height="{height}" rx="4" fill="{colour}" fill-opacity="{0.35 + 0.2 * k:.2f}"/>'
        )
    return "".join(parts)


def draw_space(x: float, y: float, radius: float) -> str:
    """The common space: a sphere with pairs of points, one of each side, that lie close."""
    parts = [f'<circle cx="{x}" cy="{y}" r="{radius}" fill="#fff" stroke="#9a9a9a"/>']
    for k in range(7):
        angle, away = 2.4 * k + 0.4, radius * (0.28 + 0.085 * k)
        px, py = x + away * math.cos(angle), y + away * math.sin(angle)
        qx, qy = px + 13 * math.cos(3.1 * k), py + 13 * math.sin(3.1 * k)
        parts += [
            f'<path d="M{px:.1f} {py:.1f}L{qx:.1f} {qy:.1f}" stroke="#9a9a9a"/>',
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{MUSIC}"/>',
            f'<rect x="{qx - 4.5:.1f}" y="{qy - 4.5:.1f}" width="9" height="9" rx="1.5" fill="{VIDEO}"/>',
        ]
    return "".join(parts)


def draw_ranks(x: float, y: float) -> str:
    """A ranking: a film, and tracks in the order of their scores; the relevant one is marked."""
    parts = [draw_film(x - 52, y - 86, 104, 30)]
    for k, score in enumerate((0.94, 0.81, 0.62, 0.45, 0.3)):
        top = y - 52 + 27 * k
        right = k == 1
        parts += [
            write(x - 62, top + 4, f"{k + 1}", "head" if right else "small"),
            f'<rect x="{x - 48}" y="{top - 8}" width="{score * 112:.0f}" height="15" rx="3" fill="{MUSIC}" fill-opacity="{0.9 if right else 0.35}"/>',
        ]
    return "".join(parts) + write(x + 62, y - 21, "&#10003;", "head")


def draw_arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A curve with a tip."""
    middle = (x + to_x) / 2
    return (
        f'<path d="M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}" fill="none" stroke="#8a8a8a" stroke-width="1.6" '
        'marker-end="url(#tip)"/>'
    )


def make_page() -> str:
    """The whole drawing."""
    top, bottom, middle = 105, 235, 170
    heads = [(90, "media"), (305, "features"), (505, "towers"), (720, "one space"), (985, "music for a video")]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-label="Music and video become features, towers map them into one space, and nearness there ranks music for a video">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#8a8a8a"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fbfbfb"/>',
            *(write(x, 34, text, "head") for x, text in heads),
            draw_wave(32, top, 116, 54),
            draw_film(30, bottom, 120, 44),
            write(90, top + 48, "mp3, flac, wav, ...", "small"),
            write(90, bottom + 48, "mp4, mkv, webm, ...", "small"),
            draw_arrow(165, top, 248, top),
            draw_arrow(165, bottom, 248, bottom),
            draw_features(305, top, MUSIC, 4, 7),
            draw_features(305, bottom, VIDEO, 4, 7),
            write(305, top + 48, "musicnn or VGGish", "small"),
            write(305, bottom + 48, "EfficientNet", "small"),
            draw_arrow(362, top, 458, top),
            draw_arrow(362, bottom, 458, bottom),
            draw_tower(505, top, MUSIC),
            draw_tower(505, bottom, VIDEO),
            write(505, top + 60, "trained on your pairs", "small"),
            draw_arrow(552, top, 634, middle - 24),
            draw_arrow(552, bottom, 634, middle + 24),
            draw_space(720, middle, 80),
            write(720, middle + 104, "what fits together lies close", "small"),
            draw_arrow(808, middle, 892, middle),
            draw_ranks(985, middle + 8),
            write(985, middle + 104, "Recall@K, report, index, service", "small"),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(make_page(), encoding="utf-8")
