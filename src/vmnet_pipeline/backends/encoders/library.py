"""The library transformers: models, processors and tokenizers from folders of this machine, never from elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.backends.encoders.source import Source
    from vmnet_pipeline.backends.networks.encoders import Kind

_LOADERS: dict[str, str] = {
    "audio": "AutoFeatureExtractor",
    "frame": "AutoImageProcessor",
    "clip": "AutoVideoProcessor",
}
_PADDED_TEXT = ("siglip", "videoprism")  # trained on texts filled up to one length
_OPERATORS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_library() -> Any:
    """Import transformers with everything that asks the network turned off.

    Raises:
        ParameterError: The extra `encoders` is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        _import_torchvision()
        import transformers
    except ImportError as error:
        raise ParameterError(
            f"encoders need more packages ({error}); install them: pip install 'vmnet-pipeline[encoders]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def use_one_thread() -> None:
    """Let torch use one thread in this process."""
    import torch

    torch.set_num_threads(1)


def _import_torchvision() -> None:
    """Import torchvision, also a build for CUDA beside a build of torch for processors.

    Such a build lacks its compiled operators and fails where it describes two of them. None of them is used here: the
    transforms are made of torch's own.
    """
    import torch

    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(str(error)) from error
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # defined by an attempt before
                torch.library.define(f"torchvision::{operator}", _OPERATORS)
        import torchvision  # noqa: F401


@contextlib.contextmanager
def _explain(source_name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (ParameterError, WeightsError):
        raise
    except Exception as error:  # of any kind: files of others lead the library anywhere
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"model {source_name!r}: its {what} cannot be loaded ({type(error).__name__}: {reason[:300]}); check that "
            "the folder is complete and of a kind that transformers knows"
        ) from error


def load_model(source: Source, *, allow_remote_code: bool = False) -> Any:
    """Load a model with exactly the weights of its files, on the processor, in float32.

    Raises:
        WeightsError: The files do not fit together, or lack a weight.
    """
    transformers = import_library()
    with _explain(source.name, "network"):
        # A model loaded from files of one precision is widened: half a precision of weights is no reason for less.
        model, report = transformers.AutoModel.from_pretrained(
            source.folder,
            local_files_only=True,
            trust_remote_code=allow_remote_code,
            use_safetensors=True,
            dtype="float32",
            output_loading_info=True,
        )
    lacking = sorted({*report["missing_keys"], *(name for name, *_ in report.get("mismatched_keys", ()))})
    if lacking:
        raise WeightsError(
            f"model {source.name!r}: its files lack {len(lacking)} of the weights, e.g. {lacking[0]}, which would be "
            f"random; take files saved from {type(model).__name__}"
        )
    return model.eval().requires_grad_(False)


def build_random(config_name: str, overrides: dict[str, Any], seed: int) -> Any:
    """A model of the published architecture with random weights, which depend on the seed only."""
    import torch

    transformers = import_library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(getattr(transformers, config_name)(**overrides))
    return model.eval().requires_grad_(False)


def load_processor(folder: Path, name: str, kind: Kind) -> Any:
    """Load what turns samples or frames into inputs of the network.

    Raises:
        WeightsError: The folder has none that is known.
    """
    transformers = import_library()
    loaders = [_LOADERS[kind], *(["AutoImageProcessor"] if kind == "clip" else [])]
    with _explain(name, "processor"):
        for loader in loaders:
            try:
                return getattr(transformers, loader).from_pretrained(folder, local_files_only=True)
            except (OSError, ValueError):
                if loader == loaders[-1]:
                    raise
    raise AssertionError("unreachable")


def build_processor(name: str, arguments: dict[str, Any]) -> Any:
    """A processor with the settings of its class."""
    return getattr(import_library(), name)(**arguments)


def count_most_samples(processor: Any) -> int | None:
    """Samples beyond which a processor leaves audio out; None where it takes any number."""
    if hasattr(processor, "nb_max_samples"):
        return int(processor.nb_max_samples)
    if "AST" in type(processor).__name__:  # frames of 25 ms every 10 ms
        return int((processor.max_length + 1.5) * processor.sampling_rate / 100)
    return None


def process_audio(processor: Any, windows: Sequence[np.ndarray]) -> np.ndarray:
    """(window,) float32 samples each to the inputs of the network, (n, ...) float32."""
    import numpy as np

    channels = int(getattr(processor, "feature_size", 1)) if "Encodec" in type(processor).__name__ else 1
    given = [np.stack([window] * channels, axis=-1) if channels > 1 else window for window in windows]
    output = processor(given, sampling_rate=processor.sampling_rate, return_tensors="pt")
    name = "input_features" if "input_features" in output else "input_values"
    return np.asarray(output[name].numpy(), np.float32)


def process_frames(processor: Any, frames: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8 frames of one size to (n, 3, h, w) float32."""
    import numpy as np
    import torch

    if hasattr(processor, "sample_frames"):
        video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        output = processor(videos=[video], do_sample_frames=False, return_tensors="pt")
        pixels = output["pixel_values_videos" if "pixel_values_videos" in output else "pixel_values"]
        return np.asarray(pixels[0].numpy(), np.float32)
    pixels = processor(images=list(frames), return_tensors="pt")["pixel_values"]
    return np.asarray((pixels[0] if pixels.ndim == 5 else pixels).numpy(), np.float32)


class TextTower:
    """Embeds texts in the joint space of a model.

    Args:
        model: Of the library, with a text tower.
        tokenizer: Of the library.
        kind: Of the side whose space is meant; some models have a space of texts for each.
    """

    def __init__(self, model: Any, tokenizer: Any, kind: Kind) -> None:
        self._model, self._tokenizer, self._kind = model, tokenizer, kind

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32, as the library gives them: not of unit length; longer texts are cut."""
        import numpy as np
        import torch

        with torch.inference_mode():
            return np.asarray(self._run(self._tokenize(list(texts))).float().numpy(), np.float32)

    def _tokenize(self, texts: list[str]) -> Any:
        config = self._model.config
        most = int(getattr(config.text_config, "max_position_embeddings", 512))
        most -= 2 if config.model_type == "clap" else 0  # RoBERTa counts positions from 2
        form = {"padding": "max_length" if config.model_type in _PADDED_TEXT else True, "max_length": most}
        return self._tokenizer(texts, truncation=True, return_tensors="pt", **form)

    def _run(self, tokens: Any) -> Any:
        names = ("input_ids", "attention_mask")
        given = {name: tokens[name] for name in names if name in tokens}
        if self._model.config.model_type in _PADDED_TEXT and self._model.config.model_type == "siglip":
            given.pop("attention_mask", None)
        if not self._model.config.model_type.startswith("pe_"):
            output = self._model.get_text_features(**given)
            return output if hasattr(output, "ndim") else output.pooler_output
        head = self._find_head()
        return head(self._model.text_model(**given, output_hidden_states=True).hidden_states[-1][:, 0])

    def _find_head(self) -> Any:
        side = "audio" if self._kind == "audio" else "video"
        return getattr(getattr(self._model, f"{side}_model", self._model), f"text_{side}_head")


def load_text_tower(source: Source, kind: Kind, model: Any) -> TextTower:
    """Load the tokenizer of a model.

    Raises:
        WeightsError: The folder has none.
    """
    transformers = import_library()
    with _explain(source.name, "tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    return TextTower(model, tokenizer, kind)
