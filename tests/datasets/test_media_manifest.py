import pandas as pd
import pytest


def test_a_manifest_is_read_and_written(remote):
    from vmnet_pipeline.datasets import MediaManifestDataset
    from vmnet_pipeline.ingestion.discovery import SourceItem
    from vmnet_pipeline.ingestion.manifest import build_manifest

    dataset = MediaManifestDataset(filepath=str(remote / "manifest.parquet"))
    with pytest.raises(Exception, match="no manifest"):
        dataset.load()
    manifest = build_manifest([SourceItem("007", "", "", "", "no_video_file", "x")], lambda path: None)
    dataset.save(manifest)
    pd.testing.assert_frame_equal(dataset.load(), manifest)
