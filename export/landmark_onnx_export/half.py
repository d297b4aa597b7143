"""Half precision: weights and activations in fp16, inputs and outputs as they were, a detector's geometry in fp32."""

import onnx

from landmark_onnx_export.geometry import geometry
from landmark_onnx_export.made import Made


def halve(model: onnx.ModelProto) -> Made:
    """The model in fp16; `model`, whose nodes have names of their own, is used up.

    Weights below fp16's least number become that number, those above its largest that one: `convert_float_to_float16`
    of onnxruntime.transformers.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = geometry(model.graph)
    made: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, node_block_list=sorted(kept)
    )
    return Made(model=made, method=None, excluded=dict.fromkeys(sorted(kept), "geometry"), layers=0)
