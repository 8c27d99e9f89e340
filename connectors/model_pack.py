"""Turn the published, block-quantised model files into files that onnxruntime runs well.

What this is for: the default pack is distributed as int8 block-quantised ONNX that onnxruntime refuses (stale graph
inputs, `block_size` on single-scale nodes) and that is slower than float32 on a CPU. What it is not: a converter for
any model; an agency that mounts its own pack mounts files that already run. The arithmetic follows the ONNX operator
specification (DequantizeLinear-21, PRelu-16).

The result is deterministic: the same original gives the same bytes, so that the model card can pin their SHA-256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


def prepare_model(original: bytes, *, input_shape: Sequence[int | str]) -> bytes:
    """Dequantise to float32, rewrite PRelu, keep the one real input and give it `input_shape` (a name = any size).

    Raises:
        ContractError: the file is no ONNX model of the kind this repairs.
    """
    try:
        model = onnx.load_model_from_string(original)
    except Exception as error:  # protobuf's DecodeError, whose package carries no types
        raise ContractError("The model file is not ONNX: fetch the assets again.") from error
    graph = model.graph
    constants: Arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        folded = _folded(node, constants)
        if folded is not None:
            constants[node.output[0]] = folded
        elif node.op_type == "PRelu" and node.input[1] in constants:
            nodes.extend(_prelu_as_relu(node, constants))
        else:
            nodes.append(node)

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
    return bytes(model.SerializeToString(deterministic=True))


def _folded(node: onnx.NodeProto, constants: Arrays) -> NDArray[Any] | None:
    """Return the value of a node that only unpacks a stored weight, or None if the node has to stay."""
    if any(name not in constants for name in node.input):
        return None
    if node.op_type == "DequantizeLinear":
        return _dequantised(node, *(constants[name] for name in node.input))
    if node.op_type == "Reshape":
        return constants[node.input[0]].reshape(constants[node.input[1]].tolist())
    return None


def _dequantised(
    node: onnx.NodeProto, values: NDArray[Any], scales: NDArray[Any], zero_points: NDArray[Any]
) -> NDArray[Any]:
    """Apply `(value - zero point) * scale`, each scale covering `block_size` neighbours along `axis`."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block_size = attributes["axis"], attributes["block_size"]
    length = values.shape[axis]

    def spread(blocks: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(blocks, block_size, axis=axis).take(np.arange(length), axis=axis)

    dequantised: NDArray[Any] = (values.astype(np.float32) - spread(zero_points).astype(np.float32)) * spread(scales)
    return dequantised


def _prelu_as_relu(node: onnx.NodeProto, constants: Arrays) -> list[onnx.NodeProto]:
    """Write PRelu(x, a) as a*x + (1-a)*Relu(x): faster in onnxruntime, and true for slopes outside [0, 1] too."""
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
