import numpy as np

from tiny_features import make_feature, write_features
from vmnet_pipeline.datasets import PackedPairsDataset
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.ingestion.splits import Split
from vmnet_pipeline.pairs.packing import FeatureSide, plan_pairs


def test_packed_pairs_are_mapped_from_a_local_copy(remote, tmp_path):
    write_features(remote / "store", make_feature("a", "s1"))
    side = FeatureSide("toy", FeatureStore(remote / "store"), lambda feature: feature[0])
    pairs = plan_pairs(side, side, Split(("a",), (), ()), {})
    here = {"filepath": str(remote / "pairs"), "cache_dir": str(tmp_path / "cache")}
    assert not PackedPairsDataset(**here).exists()
    PackedPairsDataset(**here).save(pairs)
    elsewhere = PackedPairsDataset(**{**here, "cache_dir": str(tmp_path / "elsewhere")})
    assert elsewhere.exists()
    loaded = elsewhere.load()
    assert loaded.ids == ("a",)
    assert isinstance(loaded.music, np.memmap)
    assert str(tmp_path / "elsewhere") in str(loaded.music.filename)
