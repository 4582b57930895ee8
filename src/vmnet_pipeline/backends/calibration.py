"""Choose the precision of a network by measuring: the flags of a processor do not say which one is the fastest.

The first time a network meets a kind of processor, each precision that the processor multiplies in hardware is timed
on made inputs of the network's own shape, and its pooled features are compared with those of f32. What was found is
kept beside the converted network, so that later runs on that kind of processor choose the same.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.backends.processor import has_bf16, has_f16, read_processor
from vmnet_pipeline.storage.atomic import write_text_atomically
from vmnet_pipeline.storage.checksummed import add_checksum, parse_checksummed, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    Run = Callable[[np.ndarray], np.ndarray]

logger = logging.getLogger(__name__)

PRECISIONS = ("f32", "bf16", "f16")
MIN_COSINE = 0.999
MIN_GAIN = 1.05  # less is within the noise of a measurement, and f32 is exact
MIN_ROUNDS, BUDGET_S = 3, 2.0
SUFFIX = ".precision.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one network on one kind of processor.

    Attributes:
        network: Name of the backend and its weights.
        processor: Model name.
        n_threads: Threads that the network ran on.
        precision: The fastest of those that keep the features.
        inputs_per_s: Speed by precision, of those tried.
        cosines: Lowest cosine of pooled features to those of f32, by precision.
    """

    network: str
    processor: str
    n_threads: int
    precision: str
    inputs_per_s: dict[str, float]
    cosines: dict[str, float]

    def describe(self) -> str:
        """One line for a log or a list."""
        tried = ", ".join(
            f"{name} {self.inputs_per_s[name]:.3g} inputs/s (cosine {self.cosines[name]:.5f})"
            for name in PRECISIONS
            if name in self.inputs_per_s
        )
        return f"{self.network} on {self.processor}, {self.n_threads} threads: {self.precision} of {tried}"

    def measure_gain(self, used: str) -> float:
        """How many times as fast as `used` the chosen precision is."""
        return self.inputs_per_s[self.precision] / self.inputs_per_s.get(used, self.inputs_per_s["f32"])


def list_precisions() -> list[str]:
    """The precisions that this processor multiplies in hardware, f32 first."""
    has = {"f32": True, "bf16": has_bf16(), "f16": has_f16()}
    return [name for name in PRECISIONS if has[name]]


def name_processor(n_threads: int) -> str:
    """Part of a file name: the kind of processor, and the threads."""
    return f"{read_processor().digest}-{n_threads}"


def recall_or_measure(path: Path, measure: Callable[[], Calibration]) -> Calibration:
    """What an earlier run has found, else measure and keep it at `path`."""
    found = read_calibration(path)
    if found is not None and found.precision in list_precisions():
        return found
    measured = measure()
    logger.info("Precision by measurement: %s", measured.describe())
    other = read_calibration(path)  # of a process that measured at the same time: both have to choose the same
    if other is not None:
        return other
    try:
        write_text_atomically(path, add_checksum(asdict(measured)))
    except (OSError, RuntimeError) as error:
        logger.warning("%s cannot be written (%s): the next run measures the precision again", path, error)
    return measured


def read_calibration(path: Path) -> Calibration | None:
    """A kept measurement; None where there is none, or it is damaged."""
    try:
        content = parse_checksummed(read_document(path))
        content.pop("checksum", None)
        calibration = Calibration(**content)
        json.dumps(calibration.describe())
        return calibration if calibration.precision in calibration.inputs_per_s else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is damaged (%s); the precision is measured again", path, error)
        path.unlink(missing_ok=True)
        return None


def list_calibrations(folder: Path) -> list[Calibration]:
    """All kept measurements below the weights folder."""
    found = [read_calibration(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return sorted((one for one in found if one is not None), key=lambda one: (one.network, one.processor))


def measure_precisions(
    build: Callable[[str], Run],
    examples: Sequence[np.ndarray],
    pool: Callable[[np.ndarray], np.ndarray],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[str, dict[str, float], dict[str, float]]:
    """Find the fastest precision whose pooled features keep a cosine of at least `MIN_COSINE` to those of f32.

    Args:
        build: Gives the network in one precision, as a function on inputs.
        examples: Inputs of one made item each, (n, ...), n >= 1.
        pool: Pools the outputs of one item as training does.
        clock: Seconds that only grow.

    Returns:
        The precision; inputs per second of each; lowest cosine of each.
    """
    runs, cosines = dict[str, "Run"](), dict[str, float]()
    expected: list[np.ndarray] = []
    for name in list_precisions():
        try:
            run = build(name)
            pooled = [pool(run(inputs)) for inputs in examples]
        except Exception as error:  # of an engine that has no kernel for it
            if name == "f32":
                raise
            logger.warning("precision %s is left out: %s: %s", name, type(error).__name__, error)
            continue
        expected = expected or pooled
        runs[name], cosines[name] = run, min(map(_measure_cosine, pooled, expected))
    speeds = _measure_speeds(runs, np.concatenate(examples), clock)
    return _choose(speeds, cosines), speeds, cosines


def _choose(speeds: Mapping[str, float], cosines: Mapping[str, float]) -> str:
    good = [name for name in speeds if cosines[name] >= MIN_COSINE and speeds[name] >= MIN_GAIN * speeds["f32"]]
    return max(good, key=lambda name: speeds[name], default="f32")


def _measure_cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = np.asarray(one, np.float64).ravel(), np.asarray(other, np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float(np.array_equal(a, b))


def _measure_speeds(runs: Mapping[str, Run], inputs: np.ndarray, clock: Callable[[], float]) -> dict[str, float]:
    """Inputs per second in the best of several rounds; in turn, so that other work on the machine slows all alike."""
    best: dict[str, float] = {}
    for name, seconds in _time_rounds(runs, inputs, clock):
        best[name] = min(seconds, best.get(name, seconds))
    return {name: len(inputs) / max(seconds, 1e-9) for name, seconds in best.items()}


def _time_rounds(
    runs: Mapping[str, Run], inputs: np.ndarray, clock: Callable[[], float]
) -> Iterator[tuple[str, float]]:
    begin, n_rounds = clock(), 0
    while len(runs) > 1 and (n_rounds < MIN_ROUNDS or clock() - begin < BUDGET_S):
        for name, run in runs.items():
            start = clock()
            run(inputs)
            yield name, clock() - start
        n_rounds += 1
    if len(runs) == 1:
        yield next(iter(runs)), 1.0


def follow_stored(backend: Any, stored: Any) -> None:
    """Let a backend go on in the precision of stored features where it may choose; see `NetworkBackend.follow`."""
    follow = getattr(backend, "follow", None)
    if follow is not None and stored is not None:
        follow(stored)
