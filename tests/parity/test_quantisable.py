"""What of an exported graph takes part in quantisation."""

import onnx
import pytest

pytest.importorskip("paddle")

from landmark_onnx_export.graphs.detector import name_nodes
from landmark_onnx_export.quantization.qdq import candidates

pytestmark = pytest.mark.paddle


def test_of_a_c4_detector_the_head_s_own_layers_take_part(exported):
    """Not what sorts rois by size before it: among that are whole numbers, and Concat takes those, too."""
    graph = onnx.load(exported("res50_oid_v4_detector").path).graph
    name_nodes(graph)
    kinds = {node.name: node.op_type for node in graph.node}
    found = [kinds[name] for name in candidates(graph)]
    assert set(found) == {"Conv", "Relu", "Add"}
    assert found.count("Conv") == 10
