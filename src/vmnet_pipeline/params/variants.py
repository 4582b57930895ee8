"""Which backends make the features of each side of a variant."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from vmnet_pipeline.params.base import Params

Backends = Annotated[
    tuple[str, ...], BeforeValidator(lambda names: names.split("+") if isinstance(names, str) else names)
]


class VariantParams(Params):
    """The backends of each side: a name, or a list of names (or `a+b`) whose features are joined in one vector."""

    music: Backends = Field(min_length=1, description="Backends of the audio.")
    video: Backends = Field(min_length=1, description="Backends of the frames.")

    @property
    def backends(self) -> tuple[str, ...]:
        """All of them, music first."""
        return (*self.music, *self.video)


VARIANTS = {
    "vmnet_fused": VariantParams(
        music=("musicnn", "descriptors_audio", "vmnet2017"), video=("efficientnet", "descriptors_video")
    ),
    "vmnet_musicnn": VariantParams(music=("musicnn",), video=("efficientnet",)),
    "vmnet_vggish": VariantParams(music=("vggish",), video=("efficientnet",)),
}
"""Variants that need not be configured, the default one first."""

DEFAULT_VARIANT = next(iter(VARIANTS))
