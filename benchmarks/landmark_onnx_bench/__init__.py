"""How fast models run here, beside each other: what `landmark-onnx bench` measures, writes and compares.

A contestant is one model on one runtime at one precision and batch size, loaded in a child process of its own. The
contestants of a contest are asked for one window of work in turn, again and again, so that whatever else the machine
does meets them all, and a ratio is the median of the ratios of windows of one round.
"""
