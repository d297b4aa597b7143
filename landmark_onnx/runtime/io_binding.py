"""IO binding: a session's inputs and outputs stay in buffers on its device, one set for each shape, used again."""

import collections
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from landmark_onnx.types import Array, Tensors

KEPT = 8
"""Sets of buffers: photos have many shapes, and the memory of a GPU is small."""


class Bindings:
    """Runs an `onnxruntime.InferenceSession` through buffers on its device.

    graph: each shape is captured as a CUDA graph of its own, which replays from these very addresses.
    fixed: the outputs' shapes follow from the inputs', so that outputs have buffers too.
    """

    def __init__(self, ort: Any, session: Any, device: str, device_id: int = 0, *, fixed: bool, graph: bool) -> None:
        self._ort, self._session, self._where = ort, session, (device, device_id)
        self._fixed, self._graph = fixed, graph
        self._sets: collections.OrderedDict[Any, _Set] = collections.OrderedDict()
        self._made = 0
        self._lock = threading.Lock()

    def run(self, outputs: Sequence[str], feeds: Tensors) -> list[Array]:
        """The named outputs on the host. One run at a time: the buffers are shared."""
        key = (tuple(outputs), *((name, array.shape, array.dtype.str) for name, array in feeds.items()))
        with self._lock:
            known = self._sets.pop(key, None)
            if known is None:
                known = self._make(outputs, feeds)
            else:
                for name, value in known.inputs.items():
                    value.update_inplace(feeds[name])
            self._sets[key] = known
            while len(self._sets) > KEPT:
                self._sets.popitem(last=False)
            self._session.run_with_iobinding(known.binding, known.options)
            # On the CPU they are the buffers themselves, which the next run overwrites.
            return [np.array(value) for value in known.binding.copy_outputs_to_cpu()]

    def _make(self, outputs: Sequence[str], feeds: Tensors) -> "_Set":
        binding = self._session.io_binding()
        # A copy: on the CPU the value is the array itself, which is the caller's.
        inputs = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array.copy(), *self._where) for name, array in feeds.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, *self._where)
        self._made += 1
        made = _Set(binding, inputs, self._options(str(self._made)))
        if self._fixed:
            # The first run tells the outputs' shapes; it must not be captured, for its outputs lie elsewhere.
            self._session.run_with_iobinding(binding, self._options("-1"))
            for name, value in zip(outputs, binding.get_outputs(), strict=True):
                binding.bind_ortvalue_output(name, value)
        return made

    def _options(self, graph: str) -> Any:
        """Run options. graph: number of the CUDA graph, "-1" to run without."""
        if not self._graph:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        return options


class _Set:
    """Buffers of one shape."""

    def __init__(self, binding: Any, inputs: dict[str, Any], options: Any) -> None:
        self.binding, self.inputs, self.options = binding, inputs, options
