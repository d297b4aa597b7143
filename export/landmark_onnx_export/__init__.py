"""Paddle release to ONNX file: read, build, convert, lower, prove."""
