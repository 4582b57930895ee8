from __future__ import annotations

from pathlib import Path

from kedro.config import OmegaConfigLoader

from vmnet_pipeline.params import TrainParams

CONF = Path(__file__).parents[2] / "conf"


def load_train(env: str, **given: object) -> dict[str, object]:
    loader = OmegaConfigLoader(str(CONF), env=env, base_env="base", default_run_env="local", runtime_params=given)
    return dict(loader["parameters"]["train"])


def test_the_cuda_environment_changes_nothing_but_device_precision_and_compilation() -> None:
    cuda, base = load_train("cuda", seed=5), load_train("local", seed=5)
    own = {"device": "cuda", "precision": "bf16", "compile": True}
    assert cuda == {**base, **own}
    assert TrainParams.model_validate(cuda).model_dump(include=set(own)) == own
    assert load_train("cuda", train={"epochs": 3})["epochs"] == 3
