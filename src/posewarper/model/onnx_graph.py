"""A convolutional network as a graph for onnxruntime, made by running it once.

Every operation that reaches PyTorch while the network runs is written down as its ONNX counterpart. That
takes little longer than one pass, where ``torch.onnx.export`` takes many seconds, and works for code that no
tracer of Python follows. What depends on the inputs must be one of the operations below (convolutions, batch
norms with running statistics, activations, sums, products, resampling, pooling, padding); everything else is
a constant. Reshaped or permuted maps are refused, as their sizes may be those of the batch.

``posewarper export`` writes files for other runtimes and uses the exporter of PyTorch, which knows every
operation; what is recorded here lives as long as a process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_LOGGER = logging.getLogger(__name__)

Network = Callable[..., Sequence[Tensor]]
TOLERANCE = 1e-4
"""How far a graph may be from the network itself, as a share of the highest value (at least 1)."""
# ReduceMean takes its axes as an input since version 18 of the operators; onnxruntime 1.15 reads both.
_OPERATORS, _FORMAT = 18, 8


class NotRecordable(Exception):
    """An operation that has no counterpart here."""


def record(function: Network, inputs: Mapping[str, Tensor]) -> tuple[bytes, list[Tensor]]:
    """Run a function of tensors, and write down what it does.

    Args:
        function: of the inputs in their order, to some tensors; networks in evaluation mode.
        inputs: name -> (B, ...) float32 on the CPU.

    Returns:
        The content of an ONNX file, whose outputs are the function's in their order and in which B, the first
        axis of inputs and outputs, is free; and the outputs for these inputs.

    Raises:
        NotRecordable: if it does what such a graph does not express.
        ImportError: if ``onnx`` is not installed.
    """
    from onnx import TensorProto, helper

    # In inference mode other operations would arrive, less taken apart; and so would those on its tensors.
    with torch.inference_mode(False), torch.no_grad():
        inputs = {name: value.clone() for name, value in inputs.items()}
        recorder = _Recorder(inputs)
        with recorder:
            results = list(function(*inputs.values()))

    def described(name: str, value: Tensor) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *value.shape[1:]])

    outputs = []
    for n, result in enumerate(results):
        if id(result) not in recorder.names:
            raise NotRecordable("an output that does not depend on the inputs")
        outputs.append(described(recorder.add("Identity", [recorder.name_of(result)], f"output_{n}"), result))
    given = [described(name, value) for name, value in inputs.items()]
    graph = helper.make_graph(recorder.nodes, "recorded", given, outputs, recorder.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPERATORS)], ir_version=_FORMAT)
    return model.SerializeToString(), results


def open_session(content: bytes | str) -> InferenceSession:
    """Return a session of onnxruntime on the CPU for the content of an ONNX file, or for a path.

    It has as many threads as PyTorch has now. They wait without spinning, since the decoder works on the same
    cores, and share the work alike in every run, so that the bytes that come out are the same.

    Raises:
        ImportError: if onnxruntime is not installed. Of contents that it cannot run it raises anything.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def accelerate(function: Network, inputs: Mapping[str, Tensor]) -> Network | None:
    """Return a function of tensors as onnxruntime computes it; None where that is no good.

    It is recorded and compared with the original on a batch of another size. Where a library is missing, an
    operation is unknown or a value differs by more than :data:`TOLERANCE`, a message of level DEBUG says so.
    What it returns takes and gives float32 on the CPU, and keeps the constants as they are now.

    Args:
        function: as for :func:`record`.
        inputs: name -> (B, ...) examples of float32 on the CPU, the first axis of any length.
    """
    try:
        content, expected = record(function, inputs)
        session = open_session(content)
        del content

        def run(*given: Tensor) -> list[Tensor]:
            arrays = {name: value.numpy() for name, value in zip(inputs, given, strict=True)}
            return [torch.from_numpy(array) for array in session.run(None, arrays)]

        found = run(*(torch.cat([value, value[:1]]) for value in inputs.values()))
        for own, theirs in zip(found, expected, strict=True):
            apart = float((own - torch.cat([theirs, theirs[:1]])).abs().max())
            if not apart <= TOLERANCE * max(1.0, float(theirs.abs().max())):
                raise NotRecordable(f"a difference of {apart:.1e}")
    except Exception as reason:  # onnxruntime and code of others fail in any way; PyTorch does the work then
        _LOGGER.debug("PyTorch runs this network, not onnxruntime: %s: %s", type(reason).__name__, reason)
        return None
    return run


def like_crops(shape: tuple[int, ...]) -> Tensor:
    """Return made-up values of the size of normalised pixels, without the generator that is the user's."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class _Recorder(TorchDispatchMode):
    """Writes down what happens to some tensors."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(value): name for name, value in inputs.items()}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._kept: list[Any] = list(inputs.values())  # an id belongs to another once its object is gone
        self._constant_names: dict[Any, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [a for value in (*args, *kwargs.values()) for a in _tensors(value)]
        self._kept += [given, result]
        if not any(id(tensor) in self.names for tensor in given):
            return result
        name = func._schema.name
        write = _WRITERS.get(name.removesuffix("_"))
        first = result[0] if isinstance(result, tuple | list) else result
        if write is None or first.dtype != torch.float32 or first.ndim < 1:
            raise NotRecordable(f"no counterpart of {name}")
        whole = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        whole |= dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        # In place or not: from here on the tensor stands for the new value.
        self.names[id(first)] = write(self, whole, first)
        return result

    def name_of(self, value: Any) -> str:
        """Return the name of a tensor, or of a number, as an input of a node."""
        if isinstance(value, Tensor):
            if id(value) in self.names:
                return self.names[id(value)]
            if value.dtype != torch.float32:
                raise NotRecordable(f"a constant of {value.dtype}")
            return self.constant(value.detach().numpy(), id(value))
        return self.constant(np.asarray(value, np.float32), ("number", float(value)))

    def constant(self, value: Any, key: Any) -> str:
        """Return the name of a constant; equal keys share one."""
        from onnx import numpy_helper

        if key not in self._constant_names:
            self._constant_names[key] = f"constant_{len(self._constant_names)}"
            own = np.ascontiguousarray(value)
            self.constants.append(numpy_helper.from_array(own, self._constant_names[key]))
        return self._constant_names[key]

    def whole_numbers(self, values: Sequence[int]) -> str:
        """Return the name of a constant of int64."""
        return self.constant(np.array(values, np.int64), ("whole", *values))

    def add(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, list | tuple) else []


Arguments = dict[str, Any]
_Writer = Callable[[_Recorder, Arguments, Tensor], str]


def _simple(kind: str, **attributes: Any) -> _Writer:
    """Return a writer of an operation of one tensor."""

    def write(to: _Recorder, given: Arguments, _: Tensor) -> str:
        return to.add(kind, [to.name_of(given["self"])], **attributes)

    return write


def _arithmetic(kind: str) -> _Writer:
    def write(to: _Recorder, given: Arguments, _: Tensor) -> str:
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            raise NotRecordable("a scaled sum")
        return to.add(kind, [to.name_of(given["self"]), to.name_of(given["other"])])

    return write


def _clip(low: str, high: str) -> _Writer:
    def write(to: _Recorder, given: Arguments, _: Tensor) -> str:
        limits = ["" if given.get(end) is None else to.name_of(given[end]) for end in (low, high)]
        return to.add("Clip", [to.name_of(given["self"]), *limits])

    return write


def _convolution(to: _Recorder, given: Arguments, _: Tensor) -> str:
    padding, transposed = list(given["padding"]), given["transposed"]
    if len(given["weight"].shape) != 4 or id(given["weight"]) in to.names:
        raise NotRecordable("a convolution other than of maps by constants")
    inputs = [to.name_of(given[name]) for name in ("input", "weight", "bias") if given[name] is not None]
    more: dict[str, Any] = {"output_padding": list(given["output_padding"])} if transposed else {}
    return to.add(
        "ConvTranspose" if transposed else "Conv",
        inputs,
        kernel_shape=list(given["weight"].shape[2:]),
        strides=list(given["stride"]),
        pads=padding * 2,
        dilations=list(given["dilation"]),
        group=given["groups"],
        **more,
    )


def _batch_norm(to: _Recorder, given: Arguments, _: Tensor) -> str:
    if given.get("training"):
        raise NotRecordable("a batch norm in training mode")
    source, mean = given["input"], given["running_mean"]
    if mean is None or source.ndim != 4:
        raise NotRecordable("a batch norm of the batch")
    scale = torch.ones_like(mean) if given["weight"] is None else given["weight"]
    shift = torch.zeros_like(mean) if given["bias"] is None else given["bias"]
    names = [to.name_of(value) for value in (source, scale, shift, mean, given["running_var"])]
    return to.add("BatchNormalization", names, epsilon=given["eps"])


def _scales(given: Arguments, result: Tensor) -> list[float]:
    scales = [new / old for new, old in zip(result.shape[2:], given["self"].shape[2:], strict=True)]
    if any(scale != int(scale) for scale in scales):
        raise NotRecordable("a scaling by a fraction")
    return [1.0, 1.0, *scales]


def _resize(mode: str) -> _Writer:
    def write(to: _Recorder, given: Arguments, result: Tensor) -> str:
        given.setdefault("self", given.get("input"))
        scales = _scales(given, result)
        name = to.constant(np.array(scales, np.float32), ("scales", *scales))
        if mode == "nearest":
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            corners = given.get("align_corners")
            how = {"coordinate_transformation_mode": "align_corners" if corners else "half_pixel"}
        return to.add("Resize", [to.name_of(given["self"]), "", name], mode=mode, **how)

    return write


def _pad(to: _Recorder, given: Arguments, result: Tensor) -> str:
    # PyTorch counts the axes from the last one, ONNX from the first.
    amounts = [*given["pad"], *[0] * (2 * result.ndim - len(given["pad"]))]
    begins, ends = amounts[::2][::-1], amounts[1::2][::-1]
    if min(amounts) < 0 or begins[0] or ends[0]:
        raise NotRecordable("a negative padding, or one of the batch")
    pads = to.whole_numbers([*begins, *ends])
    return to.add("Pad", [to.name_of(given["self"]), pads, to.name_of(given.get("value") or 0.0)])


def _pool(kind: str) -> _Writer:
    def write(to: _Recorder, given: Arguments, _: Tensor) -> str:
        if given.get("divisor_override") is not None:
            raise NotRecordable("a pooling by another divisor")
        size = [*given["kernel_size"], *given["kernel_size"]][:2]
        stride = [*given["stride"], *given["stride"]][:2] or size
        padding = [*given["padding"], *given["padding"]][:2]
        how: dict[str, Any] = {"kernel_shape": size, "strides": stride, "pads": padding * 2}
        how["ceil_mode"] = int(given["ceil_mode"])
        if kind == "AveragePool":
            how["count_include_pad"] = int(given["count_include_pad"])
        else:
            how["dilations"] = [*given["dilation"], *given["dilation"]][:2]
        return to.add(kind, [to.name_of(given["self"])], **how)

    return write


def _mean(to: _Recorder, given: Arguments, _: Tensor) -> str:
    axes = [axis % given["self"].ndim for axis in given["dim"] or ()]
    if not axes or 0 in axes or given.get("dtype") is not None:
        raise NotRecordable("a mean over the batch")
    inputs = [to.name_of(given["self"]), to.whole_numbers(axes)]
    return to.add("ReduceMean", inputs, keepdims=int(given["keepdim"]))


def _concatenate(to: _Recorder, given: Arguments, result: Tensor) -> str:
    axis = given["dim"] % result.ndim
    if axis == 0:
        raise NotRecordable("a longer batch")
    return to.add("Concat", [to.name_of(value) for value in given["tensors"]], axis=axis)


def _flip(to: _Recorder, given: Arguments, result: Tensor) -> str:
    axes = [axis % result.ndim for axis in given["dims"]]
    if 0 in axes:
        raise NotRecordable("a turned batch")
    # A slice that runs backwards, from the last one to before the first.
    last, steps = [-1] * len(axes), [-1] * len(axes)
    parts = [last, [-(2**31)] * len(axes), axes, steps]
    return to.add("Slice", [to.name_of(given["self"]), *(to.whole_numbers(part) for part in parts)])


_WRITERS: dict[str, _Writer] = {
    "aten::convolution": _convolution,
    "aten::native_batch_norm": _batch_norm,
    "aten::_native_batch_norm_legit_no_training": _batch_norm,
    "aten::relu": _simple("Relu"),
    "aten::sigmoid": _simple("Sigmoid"),
    "aten::tanh": _simple("Tanh"),
    "aten::hardtanh": _clip("min_val", "max_val"),
    "aten::clamp": _clip("min", "max"),
    "aten::clamp_min": _clip("min", ""),
    "aten::hardswish": _simple("HardSwish"),
    "aten::hardsigmoid": _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten::clone": _simple("Identity"),
    "aten::add": _arithmetic("Add"),
    "aten::sub": _arithmetic("Sub"),
    "aten::mul": _arithmetic("Mul"),
    "aten::div": _arithmetic("Div"),
    "aten::silu": lambda to, given, _: to.add(
        "Mul", [to.name_of(given["self"]), to.add("Sigmoid", [to.name_of(given["self"])])]
    ),
    "aten::upsample_nearest2d": _resize("nearest"),
    "aten::upsample_bilinear2d": _resize("linear"),
    "aten::constant_pad_nd": _pad,
    "aten::max_pool2d_with_indices": _pool("MaxPool"),
    "aten::avg_pool2d": _pool("AveragePool"),
    "aten::mean": _mean,
    "aten::cat": _concatenate,
    "aten::flip": _flip,
}
