"""What one part of the torture run reports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of ill-treatment and what became of it.

    Attributes:
        what: What was done, in a few words, e.g. `mp4 truncated`.
        tried: How often.
        ended: How often each foreseen end was met, e.g. `{"features": 12, "unknown_format": 30}`; sums up to `tried`
            when there are no failures.
        failures: What must not happen, one sentence each: a crash of the run, a hang, something lost. None is good.
    """

    what: str
    tried: int
    ended: dict[str, int]
    failures: list[str] = field(default_factory=list)
