"""Turn the published, block-quantised model files into files that onnxruntime runs well.

What this is for: the default pack is distributed as int8 block-quantised ONNX that onnxruntime refuses (stale graph
inputs, `block_size` on single-scale nodes) and that is slower than float32 on a CPU. What it is not: a converter for
any model; an agency that mounts its own pack mounts files that already run. The arithmetic follows the ONNX operator
specification (DequantizeLinear-21, PRelu-16) and, for the integer form, onnxruntime's DynamicQuantizeMatMul.

The result is deterministic: the same original gives the same bytes, so that the model card can pin their SHA-256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

_INTEGER_LEVELS = 63
"""Largest weight of an integer product. Two products of a byte and such a weight fit in the 16 bits in which processors
without VNNI add them; so every processor comes to the same sum, where 127 would overflow on some."""
_INTEGER_MIN_INPUTS = 64  # of a convolution: with fewer, turning the layout round costs more than integers save
_NHWC, _NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def prepare_model(original: bytes, *, input_shape: Sequence[int | str], integer: bool = False) -> bytes:
    """Dequantise to float32, rewrite PRelu, keep the one real input and give it `input_shape` (a name = any size).

    `integer`: the large products (1x1 convolutions, the last layer) are of bytes, whose range is taken from each image;
    nothing is calibrated, so the result rests on the original alone.

    Raises:
        ContractError: the file is no ONNX model of the kind this repairs.
    """
    try:
        model = onnx.load_model_from_string(original)
    except Exception as error:  # protobuf's DecodeError, whose package carries no types
        raise ContractError("The model file is not ONNX: fetch the assets again.") from error
    graph = model.graph
    constants: Arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    computing = [node for node in graph.node if not _is_folded(node, constants)]
    if integer:
        computing = list(_with_integer_products(computing, constants))
    nodes = [part for node in computing for part in _prelu_as_relu(node, constants)]

    used = {name for node in nodes for name in node.input}
    real_inputs = [value for value in graph.input if value.name in used and value.name not in constants]
    if len(real_inputs) != 1:
        raise ContractError(f"The model has {len(real_inputs)} inputs after repair; exactly one is expected.")
    outputs = list(graph.output)
    for output in outputs:  # sizes follow from the input now, so only the rank stays stated
        for dimension in output.type.tensor_type.shape.dim[:-1]:
            dimension.Clear()

    repaired = helper.make_graph(
        nodes,
        graph.name,
        inputs=[helper.make_tensor_value_info(real_inputs[0].name, onnx.TensorProto.FLOAT, list(input_shape))],
        outputs=outputs,
        initializer=[numpy_helper.from_array(constants[name], name) for name in sorted(used & constants.keys())],
    )
    graph.CopyFrom(repaired)
    if integer:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return bytes(model.SerializeToString(deterministic=True))


def _is_folded(node: onnx.NodeProto, constants: Arrays) -> bool:
    """Make a node that only unpacks a stored weight a constant; say whether it was one."""
    if any(name not in constants for name in node.input):
        return False
    if node.op_type == "DequantizeLinear":
        constants[node.output[0]] = _dequantised(node, *(constants[name] for name in node.input))
    elif node.op_type == "Reshape":
        constants[node.output[0]] = constants[node.input[0]].reshape(constants[node.input[1]].tolist())
    else:
        return False
    return True


def _dequantised(
    node: onnx.NodeProto, values: NDArray[Any], scales: NDArray[Any], zero_points: NDArray[Any]
) -> NDArray[Any]:
    """Apply `(value - zero point) * scale`, each scale covering `block_size` neighbours along `axis`."""
    attributes = _attributes(node)
    axis, block_size = attributes["axis"], attributes["block_size"]
    length = values.shape[axis]

    def spread(blocks: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(blocks, block_size, axis=axis).take(np.arange(length), axis=axis)

    dequantised: NDArray[Any] = (values.astype(np.float32) - spread(zero_points).astype(np.float32)) * spread(scales)
    return dequantised


def _prelu_as_relu(node: onnx.NodeProto, constants: Arrays) -> list[onnx.NodeProto]:
    """Write PRelu(x, a) as a*x + (1-a)*Relu(x): faster in onnxruntime, and true for slopes outside [0, 1] too.

    Any other node stays as it is.
    """
    if node.op_type != "PRelu" or node.input[1] not in constants:
        return [node]
    x, slope = node.input
    output = node.output[0]
    rest = f"{slope}_complement"
    constants[rest] = np.float32(1.0) - constants[slope]
    return [
        helper.make_node("Relu", [x], [f"{output}_positive"]),
        helper.make_node("Mul", [slope, x], [f"{output}_sloped"]),
        helper.make_node("Mul", [rest, f"{output}_positive"], [f"{output}_rest"]),
        helper.make_node("Add", [f"{output}_sloped", f"{output}_rest"], [output]),
    ]


def _with_integer_products(nodes: Sequence[onnx.NodeProto], constants: Arrays) -> Iterator[onnx.NodeProto]:
    """Write 1x1 convolutions, with the BatchNormalization and PRelu behind them, and Gemm as products of integers.

    Only the form of a MobileNet is known: a chain in which each of these has one reader.
    """
    waiting = list(nodes)
    while waiting:
        node = waiting.pop(0)
        if node.op_type == "Gemm" and _attributes(node).get("transB") == 1 and node.input[1] in constants:
            weights = constants[node.input[1]].astype(np.float64).T
            yield _integer_product(node.input[0], node.output[0], weights, constants[node.input[2]], constants)
        elif node.op_type == "Conv" and _is_large_product(constants[node.input[1]]):
            scale, shift = np.ones(1), np.zeros(1)
            output = node.output[0]
            if waiting and waiting[0].op_type == "BatchNormalization" and waiting[0].input[0] == output:
                norm = waiting.pop(0)
                scale, shift = _scale_and_shift(norm, constants)
                output = norm.output[0]
            weights = constants[node.input[1]][:, :, 0, 0].astype(np.float64).T * scale
            bias = shift if len(node.input) == 2 else constants[node.input[2]] * scale + shift  # noqa: PLR2004 - x, w
            turned = f"{output}_nhwc"
            yield helper.make_node("Transpose", [node.input[0]], [f"{turned}_in"], perm=_NHWC)
            bias = np.broadcast_to(bias, weights.shape[1:])
            yield _integer_product(f"{turned}_in", turned, weights, bias, constants)
            if waiting and waiting[0].op_type == "PRelu" and waiting[0].input[0] == output:
                slope_name, output = waiting[0].input[1], waiting.pop(0).output[0]
                slope = constants[slope_name].reshape(-1)
                if (slope > 1.0).any():
                    raise ContractError("A slope above 1 cannot be written as a maximum: prepare it without `integer`.")
                constants[f"{turned}_slope"] = slope
                yield helper.make_node("Mul", [turned, f"{turned}_slope"], [f"{turned}_sloped"])
                yield helper.make_node("Max", [turned, f"{turned}_sloped"], [f"{turned}_out"])
                turned = f"{turned}_out"
            yield helper.make_node("Transpose", [turned], [output], perm=_NCHW)
        else:
            yield node


def _is_large_product(weights: NDArray[Any]) -> bool:
    return weights.shape[1] >= _INTEGER_MIN_INPUTS and weights.shape[2:] == (1, 1)


def _integer_product(
    x: str, output: str, weights: NDArray[np.float64], bias: NDArray[Any], constants: Arrays
) -> onnx.NodeProto:
    """Return the node of `x @ weights + bias`; weights `(inputs, outputs)`, rounded with a scale for each output."""
    scales = np.abs(weights).max(axis=0) / _INTEGER_LEVELS
    names = [f"{output}_{part}" for part in ("weights", "scales", "zero_points", "bias")]
    values = (
        np.rint(weights / scales).astype(np.int8),
        scales.astype(np.float32),
        np.zeros(len(scales), dtype=np.int8),
        bias.astype(np.float32),
    )
    constants.update(zip(names, values, strict=True))
    return helper.make_node("DynamicQuantizeMatMul", [x, *names], [output], domain="com.microsoft")


def _scale_and_shift(node: onnx.NodeProto, constants: Arrays) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a BatchNormalization multiplies by and adds."""
    gamma, beta, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:5])
    scale = gamma / np.sqrt(variance + _attributes(node)["epsilon"])
    return scale, beta - mean * scale


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
