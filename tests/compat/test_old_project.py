"""What an earlier commit wrote is still read: feature store, checkpoint, search index, and MLflow's database."""

import shutil
import sqlite3

import numpy as np
import pytest
from make_old_project import PARAMS, ROOT, has_commit, make_old_project, run_project

from vmnet_pipeline import Embedder
from vmnet_pipeline.features.maintenance import verify_store
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.search.index_files import load_index

pytestmark = pytest.mark.skipif(not has_commit(), reason="the history is not here (a shallow clone)")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return make_old_project(tmp_path_factory.mktemp("old") / "project")


def test_a_feature_store_is_read_and_verified(old):
    store = FeatureStore(old / "store")
    with np.load(old / "features.npz") as wanted:
        assert store.done_ids() == sorted(wanted.files)
        for item_id in wanted.files:
            np.testing.assert_array_equal(store.load(item_id), wanted[item_id])
    assert store.rows["bad"].reason == "undecodable_audio"
    verification = verify_store(store, n_workers=1)
    assert (verification.n_checked, verification.missing, verification.damaged) == (5, (), ())


def test_a_checkpoint_gives_the_same_embeddings(old):
    (checkpoint,) = (old / "data/06_models").glob("*/vmnet_musicnn/checkpoint")
    with np.load(old / "embeddings.npz") as wanted:
        x, y = Embedder.load(checkpoint)((wanted["music"], wanted["video"]), pooled=True)
        np.testing.assert_allclose(x, wanted["x"], atol=1e-6)
        np.testing.assert_allclose(y, wanted["y"], atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_search_index_gives_the_same_answers(old, kind):
    index = load_index(old / kind)
    with np.load(old / "embeddings.npz") as arrays:
        assert [hit.id for hit in index.search(arrays["y"][:1], 6)[0]] == np.load(old / f"{kind}.npy").tolist()


def test_a_run_goes_on_in_the_same_project(old):
    shutil.rmtree(old / "src")
    shutil.copytree(ROOT / "src", old / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(old / "conf")
    shutil.copytree(ROOT / "conf", old / "conf", ignore=shutil.ignore_patterns("local"))
    (old / "conf/local").mkdir()
    params = f"pairs_dir=pairs,train.protocol=default,{PARAMS}"
    run_project(old, "-m", "kedro", "run", "--pipelines=train,evaluate", "--params", params)
    with sqlite3.connect(old / "mlflow.db") as database:
        statuses = [row[0] for row in database.execute("select status from runs")]
    assert statuses == ["FINISHED"] * 2
