"""Half precision: weights and activations in fp16, inputs and outputs as they were, a detector's geometry in fp32."""

from pathlib import Path

import onnx

from landmark_onnx_export.geometry import geometry
from landmark_onnx_export.made import Made


def halve(path: Path) -> Made:
    """The model of a folded file, whose nodes have names of their own, in fp16.

    Weights below fp16's least number become that number, those above its largest that one: `convert_float_to_float16`
    of onnxruntime.transformers.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Types are inferred without the weights, which may be more than protobuf takes; casts go where types change.
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    onnx.load_external_data_for_model(model, str(path.parent))
    kept = sorted(geometry(model.graph))
    made: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, node_block_list=kept
    )
    return Made(model=made, method=None, excluded=dict.fromkeys(kept, "geometry"), layers=0)
