"""Small graphs as paddle2onnx returns them, and what ONNX Runtime answers to a graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def paddle_model(nodes: list[Any], inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Any:
    """A model as paddle2onnx returns it: our ops in domain Paddle, types and ranks of the given arrays, sizes open."""
    from onnx import helper

    given, wanted = (
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), [None] * like.ndim)
            for name, like in values.items()
        ]
        for values in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "paddle", given, wanted)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("Paddle", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def paddle_node(op: str, inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    from onnx import helper

    noise = {"op_role": 0, "op_device": "", "op_namescope": "/", "with_quant_attr": 0}
    return helper.make_node(op, inputs, outputs, domain="Paddle", **noise, **attrs)


def run(model: Any, inputs: Mapping[str, Array]) -> list[Array]:
    import onnxruntime

    import landmark_onnx  # noqa: F401  # no telemetry

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))
