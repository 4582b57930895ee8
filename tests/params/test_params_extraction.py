import pytest
from pydantic import ValidationError

from vmnet_pipeline.extraction.driver import select_shard
from vmnet_pipeline.params import ExtractParams
from vmnet_pipeline.types import MediaItem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": {"kind": "dask"}}, "address of a scheduler"),
        ({"executor": {"kind": "processes", "address": "tcp://a:1"}}, "kind processes takes no address"),
        ({"array": {"n_workers": 4}}, "belong together"),
        ({"array": {"worker": 4, "n_workers": 4}}, "counted from 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        ExtractParams.model_validate(settings)


def test_shards_are_disjoint_whole_and_keep_copies_together():
    items = [MediaItem(f"{k}", f"{k}.wav", f"sha256:{k % 50}") for k in range(100)]
    shards = [select_shard(items, (worker, 3)) for worker in range(3)]
    assert sorted(item.id for shard in shards for item in shard) == sorted(item.id for item in items)
    contents = [{item.checksum for item in shard} for shard in shards]
    assert sum(len(content) for content in contents) == 50
    assert select_shard(items, None) == items
