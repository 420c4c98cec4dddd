"""Files for tests of the command line: the demo's models, and small models with names of one's choice."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

DEMO = Path(__file__).resolve().parents[2] / "cli" / "demo-data"


def chain_of_layers(*names, weight=None):
    """A chain of dense layers of two units each, one per name."""
    values = np.ones((2, 2), dtype=np.float32) if weight is None else weight
    nodes, initializers, last = [], [], "x"
    for index, name in enumerate(names):
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"y{index}"], name=name))
        initializers.append(numpy_helper.from_array(values, f"w{index}"))
        last = f"y{index}"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 2])],
        initializers,
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
