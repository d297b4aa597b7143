"""`python -m landmark_onnx_bench.gpu`: what an NVIDIA GPU makes of the models, beside the CPU of the same machine."""
