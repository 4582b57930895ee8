"""Pieces of whole files, and the choice of a passage."""

from __future__ import annotations

from pydantic import Field, model_validator

from vmnet_pipeline.params.base import Params


class PieceParams(Params):
    """How whole tracks and videos are cut into pieces, each of which gets an embedding."""

    window_s: float = Field(10.0, ge=1.0, le=600.0, description="Length of a piece in seconds.")
    hop_s: float = Field(5.0, ge=0.5, le=600.0, description="Seconds from the start of a piece to that of the next.")

    @model_validator(mode="after")
    def _check_hop(self) -> PieceParams:
        if self.hop_s > self.window_s:
            raise ValueError(f"hop_s={self.hop_s:g} is longer than window_s={self.window_s:g}: parts would be skipped")
        return self


class PassageParams(Params):
    """How the part of a track is chosen: the weight of each term of the score, and how far one looks."""

    agreement: float = Field(1.0, ge=0, description="Weight of the agreement of pieces over time, -1 to 1.")
    start: float = Field(0.15, ge=0, description="Weight of a start at a section (1), bar line (0.6) or beat (0.3).")
    end: float = Field(0.1, ge=0, description="Weight of an end at a fade, section or phrase (1) or bar line (0.5).")
    energy: float = Field(0.15, ge=0, description="Weight of the correlation of loudness with motion, -1 to 1.")
    cuts: float = Field(0.25, ge=0, description="Weight of cuts that fall on beats, beyond chance: up to 1.")
    n_candidates: int = Field(200, ge=1, description="Tracks, best by their whole vectors, whose pieces are compared.")
    n_analysed: int = Field(5, ge=1, le=100, description="Of these, the best, whose beats and sections are looked for.")
    min_scene_s: float = Field(8.0, ge=1.0, description="Shortest scene that gets a passage of its own.")
