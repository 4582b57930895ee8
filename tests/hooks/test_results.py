"""What a run prints at its end."""

from types import SimpleNamespace

from vmnet_pipeline.hooks.results import print_results
from vmnet_pipeline.pipeline_registry import register_pipelines


def test_a_run_that_ingests_says_where_the_manifest_is(capsys, tmp_path):
    manifest = SimpleNamespace(_filepath=str(tmp_path / "manifest.parquet"))
    print_results(register_pipelines()["ingest"], {"manifest": manifest})
    assert capsys.readouterr().out == f"Manifest    {tmp_path / 'manifest.parquet'}\n"
