"""Planning of pairs: what is refused before it is packed."""

import pytest

from reference_data import make_reference_data
from vmnet_pipeline.errors import PairsError
from vmnet_pipeline.params import SplitParams, TrainParams
from vmnet_pipeline.pipelines.train.nodes import pack_reference_pairs
from vmnet_pipeline.reference.layout import locate_subsets, make_layout


@pytest.mark.parametrize("n_test", [1, 2])
def test_a_single_test_pair_is_refused_before_training(tmp_path, n_test):
    layout = make_layout(locate_subsets(make_reference_data(tmp_path, n_train=4, n_test=n_test)))
    if n_test > 1:
        assert len(pack_reference_pairs(layout, SplitParams(), TrainParams()).split.test) == n_test
        return
    with pytest.raises(PairsError, match=r"'004' is the only test pair that can be used"):
        pack_reference_pairs(layout, SplitParams(), TrainParams())
