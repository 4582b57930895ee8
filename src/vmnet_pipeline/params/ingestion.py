"""Parameters of the media, their split, and feature files used instead of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vmnet_pipeline.params.base import LimitParams, Location, Params, Share


class IngestParams(Params):
    """Where the media are and how they are probed."""

    media_dir: Location = Field(description="Folder with media, or the path of a media.csv; local or a URL.")
    group: Literal["parent", "regex", "table", "none"] | None = Field(
        None,
        description="Groups, which a split keeps whole: `table`, the column of a media.csv; `parent`, the folder of "
        "the file; `regex`, a part of its name; `none`. null: the table's if it has any, else names without their last "
        "number, unless more than half would be one.",
    )
    group_regex: str | None = Field(
        None,
        description="Regular expression for `regex`, searched in the path without suffix below the media folder; its "
        "first group is the name. null: the path without its last number.",
    )
    library: Location | None = Field(
        None,
        description="Folder with tracks alone, videos alone, or both, without pairs; one file; or a media.csv. It is "
        "indexed with an existing network, and takes the place of `media_dir`.",
    )
    library_side: Literal["auto", "music", "video"] = Field(
        "auto",
        description="What is used of the files of a library: `auto` takes audio files as music and others as video, "
        "`music` the audio of every file, `video` the frames.",
    )
    n_workers: int | None = Field(None, ge=1, description="Files probed at the same time; all cores by default.")
    limits: LimitParams = Field(default_factory=lambda: LimitParams.model_validate({}))

    @model_validator(mode="after")
    def _check_regex(self) -> IngestParams:
        if self.group_regex is None:
            return self
        if self.group not in (None, "regex"):
            raise ValueError(f"group_regex belongs to group=regex, not to group={self.group}")
        try:
            re.compile(self.group_regex)
        except re.error as error:
            raise ValueError(f"group_regex is no regular expression: {error}") from error
        return self


class SplitParams(Params):
    """How usable items are divided into train, val and test; groups are never divided."""

    seed: int = Field(17, ge=0, description="Another seed gives another division.")
    train_share: Share = Field(0.6, description="Expected share of groups used for training.")
    val_share: Share = Field(0.15, description="Expected share of groups used to choose the best epoch.")
    test_share: Share = Field(0.25, description="Expected share of groups used for the reported results.")
    split_dir: Location | None = Field(
        None, description="Folder with your train.csv, test.csv and optionally val.csv; local or a URL."
    )

    @model_validator(mode="after")
    def _check_shares(self) -> SplitParams:
        total = self.train_share + self.val_share + self.test_share
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train_share + val_share + test_share must be 1, not {total:g}")
        return self


class ReferenceParams(Params):
    """The user's own feature files in the layout of the reference; they replace ingestion and extraction."""

    pairs_dir: Path | None = Field(None, description="Folder with train.csv, test.csv, train/ and test/.")
    train_data_dir: Path | None = Field(None, description="Folder with audio/ and video/ of the training items.")
    train_csv_path: Path | None = Field(None, description="Their ids.")
    test_data_dir: Path | None = Field(None, description="Folder with audio/ and video/ of the test items.")
    test_csv_path: Path | None = Field(None, description="Their ids.")
    variant: Literal["vmnet_musicnn", "vmnet_vggish"] | None = Field(
        None, description="Variant for these files; null recognises it from their shapes."
    )

    @property
    def places(self) -> dict[str, Path]:
        """The places that are given, by name."""
        return {name: value for name, value in self if name != "variant" and value is not None}
