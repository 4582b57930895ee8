"""The two-tower network: standardised inputs and one tower for each side."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.types import Features, MaskedSequence, PairOutput, TowerOutput


class Standardise(nn.Module):
    """(x - mean) / std over the last axis; the statistics are buffers and so travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x: Features) -> Features:
        """(..., D) float32 -> (..., D) float32; of sequences the values."""
        if isinstance(x, MaskedSequence):
            return x._replace(values=(x.values - self.mean) / self.std)
        return (x - self.mean) / self.std


class Whiten(Standardise):
    """Standardise, then one linear map of every vector, which is the identity until it is set."""

    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("matrix", torch.eye(dim))

    def forward(self, x: Features) -> Features:
        """(..., D) float32 -> (..., D) float32; of sequences the values."""
        scaled = super().forward(x)
        if isinstance(scaled, MaskedSequence):
            return scaled._replace(values=self._map(scaled.values))
        return self._map(scaled)

    def _map(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):  # small directions grow, and need their digits
            return values.float() @ self.matrix


class VMNet(nn.Module):
    """A music tower and a video tower into one space: modules from (B, *shape) to `TowerOutput`, after their scaler."""

    def __init__(
        self,
        music_tower: nn.Module,
        video_tower: nn.Module,
        music_scaler: nn.Module | None = None,
        video_scaler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.music_scaler = music_scaler or nn.Identity()
        self.video_scaler = video_scaler or nn.Identity()
        self.music = music_tower
        self.video = video_tower

    def forward(self, music: Features, video: Features) -> PairOutput:
        """Run both towers on (B, ...) float32 features of B pairs."""
        return PairOutput(self._run_music(music), self._run_video(video))

    def embed_music(self, music: Features) -> Tensor:
        """Music features (B, *music_shape) float32 -> (B, E) float32 unit vectors."""
        return self._run_music(music).embedding

    def embed_video(self, video: Features) -> Tensor:
        """Video features (B, *video_shape) float32 -> (B, E) float32 unit vectors."""
        return self._run_video(video).embedding

    def _run_music(self, music: Features) -> TowerOutput:
        _refuse_sequences(music, self.music, "music")
        return cast("TowerOutput", self.music(self.music_scaler(music)))

    def _run_video(self, video: Features) -> TowerOutput:
        _refuse_sequences(video, self.video, "video")
        return cast("TowerOutput", self.video(self.video_scaler(video)))


def _refuse_sequences(features: Features, tower: nn.Module, side: str) -> None:
    """Raise where sequences meet a tower for features of one shape."""
    if isinstance(features, MaskedSequence) and not any(hasattr(part, "takes_sequences") for part in tower.modules()):
        raise ParameterError(
            f"the {side} features are sequences, and its tower takes features of one shape per item; "
            f"use {side}_tower 'sequence' or 'transformer', or pack the features pooled"
        )
