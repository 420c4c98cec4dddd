"""Quantized operations as float ones, so that their weights can be perturbed.

`DequantizeLinear` and `Cast` of a constant become a float constant. Integer contractions become float ones
with the zero point taken out of the weights: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv, and
onnxruntime's DynamicQuantizeLSTM. The activations' own quantization stays where it is a separate operation.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import Kind, OpSpec, spec_of
from emergraph.exporters.runtime.quantization import dequantize

Array = NDArray[np.generic]
ConstantReader = Callable[[str], Array]

FLOAT = int(onnx.TensorProto.FLOAT)


@dataclass
class Rewriting:
    """A model's operations while they are rewritten."""

    constants: dict[str, onnx.TensorProto]
    """Initializers by name, new ones included."""
    read: Callable[[onnx.TensorProto], Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was rewritten, for reports."""
    origins: dict[str, str] = field(default_factory=dict)
    """Name of the file's tensor behind a constant that was made from it."""
    made: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Constants made before, by what they were made from: a tied weight stays one parameter."""

    def value(self, name: str) -> Array | None:
        """Value of a constant; None for what is made at run time."""
        tensor = self.constants.get(name)
        return None if tensor is None else self.read(tensor)

    def add(self, name: str, value: Array) -> str:
        """Make a float32 constant and return its name."""
        self.constants[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        return name

    def add_weight(self, origin: str, how: tuple[str, ...], value: Callable[[], Array]) -> str:
        """Make the float form of a quantized tensor, once for equal `how`, and return its name."""
        key = (origin, *how)
        if key not in self.made:
            name = f"{origin}/float" if not self.made else f"{origin}/float/{len(self.made)}"
            self.made[key] = self.add(name, value())
            self.origins[name] = origin
        return self.made[key]


def _dequantize_linear(node: onnx.NodeProto, model: Rewriting) -> bool:
    q, scale = model.value(node.input[0]), model.value(node.input[1])
    if q is None or scale is None:
        return False
    zero = model.value(input_name(node, 2))
    found = attributes(node)
    axis, block = int(str(found.get("axis", 1))), int(str(found.get("block_size", 0)))
    name = model.add_weight(
        node.input[0],
        ("codes", *node.input[1:], str(axis), str(block)),
        lambda: dequantize(q, scale, zero, axis=axis if q.ndim > 1 else 0, block_size=block),
    )
    model.nodes.append(helper.make_node("Identity", [name], [node.output[0]], name=node.name))
    return True


def _cast(node: onnx.NodeProto, model: Rewriting) -> bool:
    value = model.value(node.input[0])
    if value is None or attributes(node).get("to") != FLOAT or value.dtype.kind not in "iu":
        return False
    if value.ndim < 2:  # scalars and shape arithmetic are not weights
        return False
    name = model.add_weight(node.input[0], ("integers",), lambda: value.astype(np.float32))
    model.nodes.append(helper.make_node("Identity", [name], [node.output[0]], name=node.name))
    return True


def cast(name: str, made: str, element_type: int) -> onnx.NodeProto:
    """A tensor as another type."""
    return helper.make_node("Cast", [name], [made], to=element_type)


def _centred(model: Rewriting, weight: str, zero_point: str, axis: int | None) -> Array | None:
    """Weights less their zero point; None when either is made at run time."""
    q = model.value(weight)
    if q is None or (zero_point and zero_point not in model.constants):
        return None
    zero = model.value(zero_point) if zero_point else None
    return dequantize(q, None, zero, axis=-1 if axis is None else axis)


def _float_activation(node: onnx.NodeProto, model: Rewriting, x: str, zero: str) -> str:
    """Append x - zero_point as float and return its name."""
    stem = node.output[0]
    model.nodes.append(cast(x, f"{stem}/x", FLOAT))
    if not zero:
        return f"{stem}/x"
    model.nodes.append(cast(zero, f"{stem}/zero", FLOAT))
    model.nodes.append(helper.make_node("Sub", [f"{stem}/x", f"{stem}/zero"], [f"{stem}/centred"]))
    return f"{stem}/centred"


def _integer_contraction(node: onnx.NodeProto, model: Rewriting) -> bool:
    """MatMulInteger and ConvInteger: their int32 result is exact in float32 below 2^24."""
    spec = spec_of(node)
    weight = _centred(model, node.input[1], input_name(node, 3), spec.codes[1].axis)
    if weight is None:
        return False
    x = _float_activation(node, model, node.input[0], input_name(node, 2))
    w = model.add_weight(node.input[1], ("integer", input_name(node, 3)), lambda: weight)
    rebuilt = helper.make_node(spec.plain, [x, w], [node.output[0]], name=node.name)
    rebuilt.attribute.extend(node.attribute)
    model.nodes.append(rebuilt)
    return True


def _qlinear(node: onnx.NodeProto, model: Rewriting) -> bool:
    """QLinearMatMul and QLinearConv: dequantize the input, contract in float, quantize the output."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = list(node.input)[:8]
    spec = spec_of(node)
    q, scale = model.value(w), model.value(w_scale)
    if q is None or scale is None:
        return False
    stem = node.output[0]
    weight = dequantize(q, scale, model.value(w_zero), axis=spec.codes[3].axis)
    inputs = [f"{stem}/x", model.add_weight(w, ("integer", w_scale, w_zero), lambda: weight)]
    bias = model.value(input_name(node, 8))
    in_scale = model.value(x_scale)
    if input_name(node, 8):
        if bias is None or in_scale is None:
            return False
        unit = np.asarray(in_scale, np.float64).reshape(()) * np.asarray(scale, np.float64)
        inputs.append(model.add(f"{stem}/bias/float", np.asarray(bias).astype(np.float64) * unit))
    model.nodes.append(helper.make_node("DequantizeLinear", [x, x_scale, x_zero], [f"{stem}/x"]))
    rebuilt = helper.make_node(spec.plain, inputs, [f"{stem}/y"], name=node.name)
    rebuilt.attribute.extend(node.attribute)
    model.nodes.append(rebuilt)
    model.nodes.append(helper.make_node("QuantizeLinear", [f"{stem}/y", y_scale, y_zero], [stem]))
    return True


def _quantized_lstm(node: onnx.NodeProto, model: Rewriting) -> bool:
    """DynamicQuantizeLSTM keeps W and R as [directions, inputs, 4 hidden]; LSTM has the last two swapped."""
    names = []
    for position, codes in spec_of(node).codes.items():
        scale_name, zero_name = input_name(node, codes.scale or 0), input_name(node, codes.zero)
        q, scale, zero = (model.value(name) for name in (node.input[position], scale_name, zero_name))
        if q is None or scale is None or zero is None:
            return False
        swapped = np.swapaxes(dequantize(q, scale, zero, axis=codes.axis), 1, 2)
        how = ("recurrent", scale_name, zero_name)
        names.append(model.add_weight(node.input[position], how, partial(np.asarray, swapped)))
    inputs = [node.input[0], *names, *list(node.input)[3:8]]
    rebuilt = helper.make_node(spec_of(node).plain, inputs, list(node.output), name=node.name)
    rebuilt.attribute.extend(node.attribute)
    model.nodes.append(rebuilt)
    return True


def _rule(spec: OpSpec) -> Callable[[onnx.NodeProto, Rewriting], bool] | None:
    """How an operation is made one with float weights."""
    if spec.kind is Kind.QUANTIZED and not spec.domain and spec.plain:
        return _integer_contraction if spec.codes_out is None else _qlinear
    if spec.kind is Kind.QUANTIZED and spec.plain_kind is Kind.RECURRENT:
        return _quantized_lstm
    return {Kind.DEQUANTIZE: _dequantize_linear, Kind.CAST: _cast}.get(spec.kind)


def with_float_weights(
    nodes: Iterable[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
    read: Callable[[onnx.TensorProto], Array],
) -> Rewriting:
    """Rewrite the quantized operations of a model whose weights are constants.

    Args:
        nodes: In data order.
        constants: Initializers by name.
        read: Gives the values of an initializer.

    Returns:
        New operations in data order, all initializers, and one note per kind of rewritten operation.
    """
    model = Rewriting(dict(constants), read)
    counts: dict[str, int] = {}
    for node in nodes:
        rule = _rule(spec_of(node))
        if rule is not None and rule(node, model):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
        else:
            model.nodes.append(node)
    model.notes.extend(f"{count} {op} with constant weights made float" for op, count in counts.items())
    return model
