"""Make a network callable on arrays: natively in torch or tensorflow, or through OpenVINO on x86 processors.

OpenVINO gets one input at a time and as many of them at once as the processor has room for: the activations of one
input stay in the cache, which on two cores made EfficientNet-lite0 2.4 and B5 1.5 times as fast as batches of eight,
and what comes out does not depend on what else is in the batch.
"""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.engine import choose_threads, import_tensorflow
from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.errors import MediaError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from vmnet_pipeline.backends.converted import ConvertedModels
    from vmnet_pipeline.backends.engine import BackendParams, EngineChoice

    Run = Callable[[np.ndarray], np.ndarray]


def build_runner(
    make_network: Callable[[], Any],
    input_shape: tuple[int, ...],
    choice: EngineChoice,
    params: BackendParams,
    converted: ConvertedModels | None = None,
) -> Run:
    """Make a network callable on arrays.

    Args:
        make_network: Gives the network with its weights, a torch module or a Keras model; not called where OpenVINO
            finds it in `converted`.
        input_shape: Shape of one input, without the batch axis.
        choice: Resolved engine.
        params: Batch size, threads, device.
        converted: Where networks converted for OpenVINO are kept; None to convert each time.

    Returns:
        A function from (m, *input_shape) numbers to (m, ...) float32, any m >= 1; it raises `MediaError`
        (`not_finite`) rather than take or give a value that is not finite.
    """
    if choice.engine == "openvino":
        run = _compile_openvino(_get_openvino_model(make_network, input_shape, converted), choice, params)
    elif choice.engine == "tensorflow":
        run = _wrap_tensorflow(make_network(), choice, params)
    else:
        run = _wrap_torch(make_network(), choice, params)

    def run_checked(inputs: np.ndarray) -> np.ndarray:
        _check_finite(inputs, "input has")  # OpenVINO's ReLU makes zero of not-a-number: outputs would not show it
        outputs = run(inputs)
        _check_finite(outputs, "output has")
        return outputs

    return run_checked


def _check_finite(values: np.ndarray, what: str) -> None:
    import numpy as np

    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MediaError("not_finite", f"the network's {what} NaN or infinity; check the media file")


def _run_batches(run: Run, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    import numpy as np

    starts = range(0, len(inputs), batch_size)
    pieces = [run(np.ascontiguousarray(inputs[start : start + batch_size], np.float32)) for start in starts]
    return np.concatenate(pieces).astype(np.float32, copy=False)


# --- the frameworks themselves


def _wrap_torch(network: Any, choice: EngineChoice, params: BackendParams) -> Run:
    import torch

    n_threads = choose_threads(params)
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(choice.precision, torch.float32)
    device = f"cuda:{params.gpu_idx or 0}" if choice.device == "cuda" else "cpu"
    network = network.eval().requires_grad_(False).to(device=device)
    if all(parameter.ndim != 5 for parameter in network.parameters()):  # of clips: torch has no such form of them
        network = network.to(memory_format=torch.channels_last)

    def run(inputs: np.ndarray) -> np.ndarray:
        # TF32 would be a third precision behind the name f32, so it is switched off around each call.
        tf32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), tf32, torch.autocast(choice.device, dtype, enabled=dtype != torch.float32):
            outputs: np.ndarray = network(torch.from_numpy(inputs).to(device)).float().cpu().numpy()
            return outputs

    return lambda inputs: _run_batches(_run_what_fits(run, device), inputs, params.batch_size)


def _run_what_fits(run: Run, device: str) -> Run:
    """Halve a batch that does not fit into the memory of the device, until it does or is one input."""
    import numpy as np
    import torch

    def run_halves(inputs: np.ndarray) -> np.ndarray:
        try:
            return run(inputs)
        except torch.OutOfMemoryError:
            pass  # here, not above: the error holds on to the memory of the failed call
        torch.cuda.empty_cache()
        if len(inputs) == 1:
            raise MediaError(
                "device_out_of_memory",
                f"one input of shape {inputs.shape[1:]} does not fit into the memory of {device}; end other programs "
                "on it, or take a smaller model, gpu_idx=N of another device or engine=openvino",
            )
        middle = len(inputs) // 2
        return np.concatenate([run_halves(inputs[:middle]), run_halves(inputs[middle:])])

    return run_halves


def _wrap_tensorflow(network: Any, choice: EngineChoice, params: BackendParams) -> Run:
    tensorflow = import_tensorflow()
    device = f"/GPU:{params.gpu_idx or 0}" if choice.device == "cuda" else "/CPU:0"
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)  # see _wrap_torch
    call = tensorflow.function(lambda inputs: network(inputs, training=False), reduce_retracing=True)

    def run(inputs: np.ndarray) -> np.ndarray:
        with tensorflow.device(device):
            outputs: np.ndarray = call(tensorflow.constant(inputs)).numpy()
            return outputs

    return lambda inputs: _run_batches(run, inputs, params.batch_size)


# --- OpenVINO


def _import_openvino() -> Any:
    """Import OpenVINO with its usage statistics off: it would send events, and write into the home folder."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _get_openvino_model(
    make_network: Callable[[], Any], input_shape: tuple[int, ...], converted: ConvertedModels | None
) -> Any:
    openvino = _import_openvino()

    def convert() -> Any:
        return _convert_network(openvino, make_network(), input_shape)

    return convert() if converted is None else converted.load_or_convert(openvino, convert)


def _convert_network(openvino: Any, network: Any, input_shape: tuple[int, ...]) -> Any:
    """A network as an OpenVINO model of one input: (1, *input_shape) float32."""
    _mend_converter()
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(network, torch.nn.Module):
        model = openvino.convert_model(network)
    else:
        example = torch.zeros(1, *input_shape)
        network = network.eval().requires_grad_(False)
        # Traced here because the converter's own tracing runs the network several times over to check itself.
        with warnings.catch_warnings():  # of values that a trace takes for constants: inputs have one shape here
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            traced = torch.jit.trace(network, example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    model.reshape([1, *input_shape])
    return model


def _mend_converter() -> None:
    """Tell OpenVINO the version of TensorFlow; it asks by an `exec` that fails on Python 3.13, whatever it converts."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        from openvino.frontend.tensorflow import utils

        utils.get_environment_setup = lambda _: {"tensorflow": tensorflow.__version__}


def _compile_openvino(model: Any, choice: EngineChoice, params: BackendParams) -> Run:
    import numpy as np

    openvino = _import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": choice.precision,
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": params.n_threads or count_cores(),
        "ENABLE_CPU_PINNING": False,  # every worker process would bind itself to the same first cores
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    output_shape = tuple(compiled.output(0).shape)[1:]
    queue, lock = openvino.AsyncInferQueue(compiled, 0), threading.Lock()

    def run(inputs: np.ndarray) -> np.ndarray:
        outputs = np.empty((len(inputs), *output_shape), np.float32)

        def keep(request: Any, index: int) -> None:
            outputs[index] = request.get_output_tensor(0).data[0]

        with lock:  # the queue has one callback at a time
            queue.set_callback(keep)
            for index in range(len(inputs)):
                queue.start_async({0: np.ascontiguousarray(inputs[index : index + 1], np.float32)}, index)
            queue.wait_all()
        return outputs

    return run
