"""Catalog dataset for the manifest of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.datasets.base import PREVIEW_ROWS, PathDataset, preview_rows
from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.discovery import list_folder
from vmnet_pipeline.ingestion.schemas import check_manifest
from vmnet_pipeline.storage.atomic import replace_atomically
from vmnet_pipeline.storage.checksummed import read_frame, write_table
from vmnet_pipeline.storage.paths import DEFAULT_CACHE_DIR, as_path, local_copy, name_local, storage_errors

if TYPE_CHECKING:
    import pandas as pd
    from kedro_datasets._typing import TablePreview


class MediaManifestDataset(PathDataset["pd.DataFrame", "pd.DataFrame"]):
    """One row per item of a collection, in a Parquet file with a checksum of its values.

    Given `audio_dir` or `video_dir`, loading lists that folder instead, so that extraction alone needs no ingestion and
    no pairs; the ids of these files are valid names on the disk of `save_dir`, where their features go.

    Example for the catalog:

        manifest:
          type: vmnet_pipeline.datasets.MediaManifestDataset
          filepath: data/02_intermediate/demo/manifest.parquet
    """

    def __init__(
        self,
        *,
        filepath: str,
        audio_dir: str | None = None,
        video_dir: str | None = None,
        save_dir: str | None = None,
        credentials: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE_DIR,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, credentials=credentials, cache_dir=cache_dir, metadata=metadata)
        self._folders = {side: as_path(path) for side, path in (("audio", audio_dir), ("video", video_dir)) if path}
        self._save_dir = None if save_dir is None else as_path(save_dir)

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {f"{side}_dir": str(path) for side, path in self._folders.items()}

    def load(self) -> pd.DataFrame:
        """The manifest, with the columns of `schemas.MANIFEST_COLUMNS`.

        Raises:
            IngestError: The manifest is missing or damaged, or the folder to list is missing.
        """
        if self._folders:
            cache_dir = Path(name_local(self._filepath, self._cache_dir)).with_name("probe_cache")
            folders = self._folders.get("audio"), self._folders.get("video")
            return list_folder(*folders, cache_dir=cache_dir, target=self._save_dir)
        try:
            with local_copy(self._filepath) as local:
                manifest = read_frame(local)
        except FileNotFoundError as error:
            raise IngestError(
                f"There is no manifest {self._filepath}. Run `kedro run --pipeline ingest` with the same media_dir "
                "first, or pass audio_dir=FOLDER or video_dir=FOLDER to extract from a bare folder."
            ) from error
        except storage_errors(ValueError) as error:
            remedy = "Run `kedro run --pipeline ingest` again."
            raise IngestError(f"{self._filepath} is damaged ({error}). {remedy}") from error
        return check_manifest(manifest, self._filepath)

    def preview(self, nrows: int = PREVIEW_ROWS) -> TablePreview:
        """The first rows, for Kedro-Viz, without paths and checksums; none of a folder that would have to be listed."""
        if self._folders or not self.exists():
            return {}
        names = ["id", "status", "reason", "group"]
        names += [f"{side}_{part}" for side in ("video", "audio") for part in ("codec", "duration_s")]
        return preview_rows(self.load()[names].head(nrows))

    def save(self, data: pd.DataFrame) -> None:
        """Write the manifest; readers see the old one or the new one.

        Raises:
            IngestError: The columns are not those of a manifest.
        """
        import pyarrow as pa

        check_manifest(data, self._filepath)
        with replace_atomically(self._filepath, durable=True) as temporary:
            write_table(pa.Table.from_pandas(data, preserve_index=False), temporary)
