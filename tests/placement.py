"""Where ONNX Runtime puts the nodes of a graph that is given the CUDA provider, by its published kernels and rules."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx

from cuda_kernels import KERNELS, UNLISTED, Kernel

SMALL = 100
"""Elements up to which ONNX Runtime takes an initializer to be a shape's: fallback_cpu_capability.cc."""

HALVES = frozenset({"float16", "bfloat16"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A graph with every tensor's element type. sizes: initializer -> elements; inputs: of the graph."""

    model: onnx.ModelProto
    types: Mapping[str, str]
    sizes: Mapping[str, int]

    @property
    def nodes(self) -> list[Any]:
        """Without Constant, which ONNX Runtime makes an initializer when it reads the graph."""
        return [node for node in self.model.graph.node if node.op_type != "Constant"]

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset(value.name for value in self.model.graph.input)

    def version(self, node: Any) -> int:
        """Since which opset the op is what it is in this graph."""
        [opset] = [entry.version for entry in self.model.opset_import if entry.domain == node.domain]
        return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)


def typed(model: onnx.ModelProto) -> Typed:
    """Raises: onnx's InferenceError for a graph whose types do not follow."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = {value.name: value.type.tensor_type for value in (*inferred.input, *inferred.output, *inferred.value_info)}
    numbers = {name: kind.elem_type for name, kind in values.items()}
    numbers |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    constants = [node.output[0] for node in inferred.node if node.op_type == "Constant"]
    sizes = {name: math.prod(dim.dim_value for dim in values[name].shape.dim) for name in constants}
    sizes |= {tensor.name: math.prod(tensor.dims) for tensor in inferred.initializer}
    types = {name: onnx.TensorProto.DataType.Name(number).lower() for name, number in numbers.items()}
    return Typed(model=model, types=types, sizes=sizes)


def complaint(graph: Typed, node: Any) -> str | None:
    """Why there is no CUDA kernel for `node`; None if there is.

    A kernel whose range is open holds for the op's version it begins with and no later one: `VerifyVersion` of
    onnxruntime/core/framework/kernel_registry.cc.
    """
    kernel = _kernel(node)
    if kernel is None:
        return f"{node.domain or 'ai.onnx'}.{node.op_type}: no kernel"
    version = graph.version(node)
    if not (version == kernel.since or (kernel.until and kernel.since <= version <= kernel.until)):
        return f"{node.op_type}-{version}: kernels of {kernel.since} to {kernel.until or kernel.since}"
    for name, constraint in _constraints(node, version):
        allowed = next((kernel.types[key] for key in constraint if key in kernel.types), None)
        if allowed is not None and graph.types[name] not in allowed:
            return f"{node.op_type}-{version}: {constraint[0]} is {graph.types[name]}"
    return None


def _kernel(node: Any) -> Kernel | None:
    return None if node.domain else KERNELS.get(node.op_type) or UNLISTED.get(node.op_type)


def _constraints(node: Any, version: int) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each tensor of the node, with its type constraint and formal name: kernels go by either."""
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for position, name in enumerate(names):
            formal = formals[min(position, len(formals) - 1)]
            if name:
                yield name, (formal.type_str, formal.name)


def without_kernel(graph: Typed) -> dict[str, str]:
    """Output of each node without a CUDA kernel -> why: the CPU runs it, with copies to it and back."""
    found = ((node.output[0], complaint(graph, node)) for node in graph.nodes)
    return {output: why for output, why in found if why is not None}


def shape_computations(graph: Typed) -> list[Any]:
    """Nodes that have a kernel but that ONNX Runtime runs on the CPU, so that no shape goes to the GPU and back.

    Those that read nothing but tensors in CPU memory, small initializers and inputs of the graph, unless the kernel
    reads them from there. Source: GetCpuPreferredNodes, onnxruntime/core/framework/fallback_cpu_capability.cc.
    """
    lacking = without_kernel(graph)
    on_host: set[str] = set()
    chosen = []
    for node in graph.nodes:
        kernel = _kernel(node)
        reached = any(name in on_host for name in node.input)
        if node.output[0] in lacking:
            on_host |= set(node.output) if reached else set()
        elif reached and _reads_host_alone(graph, node, on_host):
            chosen.append(node)
            on_host |= set(node.output)
        elif kernel:
            on_host |= {node.output[position] for position in kernel.host_out}
    return chosen


def _reads_host_alone(graph: Typed, node: Any, on_host: Collection[str]) -> bool:
    kernel = _kernel(node)
    for position, name in enumerate(node.input):
        if graph.types.get(name) in HALVES:
            return False
        free = graph.sizes.get(name, SMALL + 1) <= SMALL or name in graph.inputs
        if not free and (name not in on_host or position in kernel.host):
            return False
    return True


def waits(graph: Typed) -> list[tuple[Any, str]]:
    """Nodes that read from CPU memory what the GPU makes, and that tensor: they wait for the GPU."""
    lacking = without_kernel(graph)
    on_host = {name for node in shape_computations(graph) for name in node.output} | set(graph.sizes) | graph.inputs
    found = []
    for node in graph.nodes:
        kernel = None if node.output[0] in lacking else _kernel(node)
        on_host |= {node.output[position] for position in kernel.host_out} if kernel else set(node.output)
        read = [name for position, name in enumerate(node.input) if kernel and position in kernel.host and name]
        found += [(node, name) for name in read if name not in on_host]
    return found
