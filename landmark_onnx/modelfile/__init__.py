"""An ONNX file as it lies on the disk: its metadata, its seal, its labels, without onnx."""
