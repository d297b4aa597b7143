"""Paddle's detection ops as plain ONNX."""
