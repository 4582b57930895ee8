"""High dynamic range and wide gamut to SDR in BT.709, the colours that networks and screens expect.

HLG and PQ are decoded to the light of a 1000 cd/m2 display, lowered to SDR white by the EETF of Report ITU-R BT.2390,
and coded for a BT.1886 display. SDR in a wide gamut (BT.2020, P3) only changes its primaries.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

# Numbers of ITU-T H.273, as FFmpeg uses them.
PQ, HLG = 16, 18
BT709, UNSPECIFIED, BT2020 = 1, 2, 9
_SDR_TRANSFERS = frozenset({1, 2, 4, 6, 13, 14, 15})  # BT.709, unspecified, 2.2, BT.601, sRGB, BT.2020 10 and 12 bit
_PRIMARIES = {  # x, y of red, green, blue; the white is D65
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # DCI-P3, its white taken as D65, as players do
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_D65 = (0.3127, 0.3290)

# SDR white in an HDR film: 203 cd/m2 by Report ITU-R BT.2408. Converters from SDR often put it at the 100 cd/m2 of an
# SDR display. Nothing in the file says so, but then it gets about as bright and no brighter, except for what the
# encoder overshoots. Of 47 real films one frame in ten is mistaken, whichever white they have: those that are dark.
_HDR_WHITE, _SDR_WHITE = 203.0, 100.0
_BRIGHTEST = (50.0, 108.0)
_OVERSHOOT = (1.2, 1.75)  # of white, by the percentiles below; most of it at edges of colours in 4:2:0
_HLG_PEAK = 1000.0
_PQ_PEAK = 10_000.0
_SDR_GAMMA = 2.4  # Recommendation ITU-R BT.1886
_PERCENTILES = (99.0, 99.9)  # bright areas, highlights
_PEAK_SAMPLES = 1 << 16
_BLOCK_PX = 1 << 17
_N_LEVELS = 1 << 16
_N_NODES = 1024


def needs_mapping(transfer: int, primaries: int) -> bool:
    """Whether pictures with these tags (H.273) are not SDR with the primaries of BT.709, or close to it."""
    return transfer in (PQ, HLG) or (transfer in _SDR_TRANSFERS and primaries in _PRIMARIES and primaries != BT709)


def read_peak(mastering: bytes | None, content: bytes | None) -> float:
    """Peak luminance that a film declares in cd/m2; that of PQ if it declares no plausible one.

    Args:
        mastering: FFmpeg's `AVMasteringDisplayMetadata`: eight chromaticities, least and most luminance as fractions
            of two int, and whether each is there.
        content: FFmpeg's `AVContentLightMetadata`: MaxCLL and MaxFALL.
    """
    peaks = []
    if content is not None and len(content) >= 8:
        peaks.append(float(struct.unpack_from("=I", content)[0]))
    if mastering is not None and len(mastering) >= 88:
        numerator, denominator, _, has_luminance = struct.unpack_from("=4i", mastering, 72)
        peaks.append(numerator / denominator if has_luminance and denominator else 0.0)
    return next((peak for peak in peaks if _SDR_WHITE <= peak <= _PQ_PEAK), _PQ_PEAK)


class ToneMapper:
    """Maps the pictures of one film, in order.

    Its peak is the brightest level so far, but no more than the film declares: a film that stays below SDR white is
    not changed but in scale, and highlights that have been seen once keep their place.
    """

    def __init__(self) -> None:
        self._bright = self._peak = 0.0  # in cd/m2
        self._touched_sdr_white = False

    def convert(self, picture: np.ndarray, transfer: int, primaries: int, declared_peak: float) -> np.ndarray:
        """Map one picture.

        Args:
            picture: (height, width, 3) uint16 R'G'B', full range.
            transfer: H.273 number of its transfer characteristics.
            primaries: H.273 number of its primaries; BT.2020 where it is none known here.
            declared_peak: From `read_peak`.

        Returns:
            (height, width, 3) uint8 R'G'B' in BT.709.
        """
        primaries = primaries if primaries in _PRIMARIES else BT2020
        to_light = _choose_decoder(transfer, primaries)
        shrink, white = None, 1.0
        if transfer in (PQ, HLG):
            white = self._find_white(*_measure_light(picture, to_light))
            if not self._stays_below(white):
                shrink = _tabulate_gain(white, max(min(self._peak, declared_peak), white))
        matrix = (_matrix_to_709(primaries) / white).astype(np.float32)
        result = np.empty(picture.shape, np.uint8)
        n_rows = max(1, _BLOCK_PX // picture.shape[1])
        for top in range(0, len(picture), n_rows):
            light = to_light(picture[top : top + n_rows])
            if shrink is not None:
                light *= np.interp(light.max(axis=2), *shrink).astype(np.float32)[..., None]
            result[top : top + n_rows] = _encode_sdr(light @ matrix.T)
        return result

    def _find_white(self, bright: float, peak: float) -> float:
        self._bright, self._peak = max(self._bright, bright), max(self._peak, peak)
        self._touched_sdr_white |= any(_BRIGHTEST[0] <= level <= _BRIGHTEST[1] for level in (bright, peak))
        return _SDR_WHITE if self._touched_sdr_white and self._stays_below(_SDR_WHITE) else _HDR_WHITE

    def _stays_below(self, white: float) -> bool:
        return self._bright <= _OVERSHOOT[0] * white and self._peak <= _OVERSHOOT[1] * white


def _measure_light(picture: np.ndarray, to_light: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Luminance of bright areas and of highlights in cd/m2, by the brightest colour of evenly spaced pixels."""
    step = max(1, round((picture.shape[0] * picture.shape[1] / _PEAK_SAMPLES) ** 0.5))
    bright, peak = np.percentile(to_light(picture[::step, ::step]).max(axis=2), _PERCENTILES)
    return float(bright), float(peak)


def _choose_decoder(transfer: int, primaries: int) -> Callable[[np.ndarray], np.ndarray]:
    """From (..., 3) uint16 R'G'B' to float32 light: in cd/m2, or relative to white for SDR."""
    if transfer == HLG:
        return functools.partial(_decode_hlg, luma=_matrix_to_xyz(primaries)[1].astype(np.float32))
    table = _tabulate(transfer == PQ)
    return lambda codes: table[codes]


def _decode_hlg(codes: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Inverse OETF and OOTF of HLG for a display of 1000 cd/m2, whose system gamma is 1.2.

    Source: Recommendation ITU-R BT.2100, table 5.
    """
    scene = _tabulate_hlg()[codes]
    luminance = scene @ luma
    light: np.ndarray = scene * (_HLG_PEAK * np.power(luminance, np.float32(0.2)))[..., None]
    return light


@functools.cache
def _tabulate_hlg() -> np.ndarray:
    """Scene light in [0, 1] for every code of 16 bit. Source: Recommendation ITU-R BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.linspace(0.0, 1.0, _N_LEVELS)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return scene.astype(np.float32)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def decode_pq(signal: np.ndarray) -> np.ndarray:
    """Display light in cd/m2 of a signal in [0, 1]. Source: SMPTE ST 2084; Recommendation ITU-R BT.2100, table 4."""
    root = np.power(signal, 1 / _M2)
    light: np.ndarray = _PQ_PEAK * np.power(np.maximum(root - _C1, 0) / (_C2 - _C3 * root), 1 / _M1)
    return light


def encode_pq(light: np.ndarray) -> np.ndarray:
    """The inverse of `decode_pq`."""
    power = np.power(np.asarray(light) / _PQ_PEAK, _M1)
    signal: np.ndarray = np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)
    return signal


@functools.cache
def _tabulate(is_pq: bool) -> np.ndarray:
    """Light of PQ or SDR for every code of 16 bits."""
    signal = np.linspace(0.0, 1.0, _N_LEVELS)
    return (decode_pq(signal) if is_pq else signal**_SDR_GAMMA).astype(np.float32)


def map_luminance(light: np.ndarray, peak: float, target: float) -> np.ndarray:
    """The EETF: what a display of lower peak shows of light in [0, peak], both in cd/m2 with black at 0.

    Source: Report ITU-R BT.2390-11, 5.4.1 (also Report ITU-R BT.2408, annex 5). Its last step lifts black to that of
    the display, which is 0 here.
    """
    most = float(encode_pq(np.asarray(peak)))
    e1 = encode_pq(np.minimum(light, peak)) / most
    max_luminance = float(encode_pq(np.asarray(target))) / most
    knee = 1.5 * max_luminance - 0.5
    t = np.clip((e1 - knee) / (1 - knee), 0.0, 1.0)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * max_luminance
    )
    return decode_pq(np.where(e1 < knee, e1, spline) * most)


def _tabulate_gain(white: float, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """(light, factor): factor for pixels whose brightest colour has this light, which keeps their hue."""
    light = decode_pq(np.linspace(0.01, 1.0, _N_NODES))
    return light, map_luminance(light, peak, white) / light


@functools.cache
def _matrix_to_xyz(primaries: int) -> np.ndarray:
    """(3, 3) float64 from linear RGB to XYZ, by chromaticities. Source: SMPTE RP 177."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    x, y = _D65
    return columns * np.linalg.solve(columns, [x / y, 1.0, (1 - x - y) / y])


@functools.cache
def _matrix_to_709(primaries: int) -> np.ndarray:
    """(3, 3) float64 between linear RGB; colours outside of BT.709 are clipped afterwards (Report ITU-R BT.2407, 2)."""
    return np.linalg.solve(_matrix_to_xyz(BT709), _matrix_to_xyz(primaries))


@functools.cache
def _tabulate_encoding() -> np.ndarray:
    """SDR codes by the square root of light, in steps of 16 bit."""
    return np.round(255 * np.linspace(0.0, 1.0, _N_LEVELS) ** (2 / _SDR_GAMMA)).astype(np.uint8)


def _encode_sdr(light: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 of linear light relative to white. Source: inverse of Recommendation ITU-R BT.1886."""
    root = np.sqrt(np.clip(light, 0.0, 1.0, out=light), out=light)
    codes: np.ndarray = _tabulate_encoding()[(root * np.float32(_N_LEVELS - 1) + np.float32(0.5)).astype(np.uint16)]
    return codes
