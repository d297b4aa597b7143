"""ONNX graphs: read, folded, made smaller, written with their weights."""
