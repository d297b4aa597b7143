"""Kernels of ONNX Runtime's CUDA provider for the ops of our graphs, as published.

Of each op the row that a node of opset 17 falls under, and no other: a graph of another opset finds none, and says so.
Source of opsets and types: microsoft/onnxruntime, docs/OperatorKernels.md, CUDAExecutionProvider, at `COMMIT`; of
memory: the kernels' own registrations, InputMemoryType and OutputMemoryType, onnxruntime/core/providers/cuda.
"""

import dataclasses
import types
from collections.abc import Mapping

COMMIT = "001d12d2623fd411ce0f83d05abb5e82304a3389"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One row of the list.

    since, until: versions of the op, both included; until None: open. types: constraint -> element types, for each
    constraint that the kernel has. host: positions of the inputs read from CPU memory; host_out: of such outputs.
    """

    since: int
    until: int | None
    types: Mapping[str, frozenset[str]]
    host: frozenset[int]
    host_out: frozenset[int]


def row(
    since: int, until: int | None = None, *, host: tuple[int, ...] = (), host_out: tuple[int, ...] = (), **of: str
) -> Kernel:
    allowed = {constraint: frozenset(names.split()) for constraint, names in of.items()}
    return Kernel(since=since, until=until, types=allowed, host=frozenset(host), host_out=frozenset(host_out))


FLOATS = "double float float16"
FLOATS_AND_BF16 = f"bfloat16 {FLOATS}"
COUNTS = "int32 int64 uint32 uint64"
NUMBERS = f"{FLOATS_AND_BF16} {COUNTS} int16 int8 uint16 uint8"
ANY = f"bool {NUMBERS}"
BYTES = "int8 uint8"
SHAPE, INDEX = "int64", "int32 int64"

KERNELS: Mapping[str, Kernel] = types.MappingProxyType(
    {
        "Add": row(14, T=NUMBERS),
        "And": row(7, T="bool", T1="bool"),
        "AveragePool": row(11, 18, T=FLOATS),
        "BatchNormalization": row(15, T=FLOATS, T1=FLOATS, T2=FLOATS),
        "Cast": row(13, 18, T1=ANY, T2=f"{ANY} float4e2m1 float8e4m3fn float8e5m2"),
        "Compress": row(11, T=ANY, T1="bool"),
        "Concat": row(13, T=ANY),
        "Conv": row(11, 21, T=FLOATS),
        "DequantizeLinear": row(13, 18, T=BYTES),
        "Div": row(14, T=NUMBERS),
        "Exp": row(13, T=FLOATS_AND_BF16),
        "Expand": row(13, T=ANY, host=(1,)),
        "Flatten": row(13, T=ANY),
        "Floor": row(13, T=FLOATS),
        "Gather": row(13, T=ANY, Tind=INDEX),
        "Gemm": row(13, T=FLOATS_AND_BF16),
        "GlobalAveragePool": row(1, T=FLOATS),
        "GreaterOrEqual": row(16, T=f"{FLOATS} {COUNTS}", T1="bool"),
        "Less": row(13, T=f"{FLOATS} {COUNTS}", T1="bool"),
        "LessOrEqual": row(16, T=f"{FLOATS} {COUNTS}", T1="bool"),
        "MatMul": row(13, T=FLOATS_AND_BF16),
        "Max": row(13, T=f"{FLOATS_AND_BF16} {COUNTS}"),
        "MaxPool": row(12, T=f"{FLOATS} {BYTES}", I="int64"),
        "Min": row(13, T=f"{FLOATS_AND_BF16} {COUNTS}"),
        "Mul": row(14, T=NUMBERS),
        "Neg": row(13, T=f"{FLOATS_AND_BF16} int16 int32 int64 int8"),
        "NonZero": row(13, T="bool float float16 int32 int64 uint8"),
        "Not": row(1, T="bool"),
        "Pad": row(13, 17, T=f"bool {FLOATS}", host=(1, 2)),
        "QuantizeLinear": row(13, 18, T1="float", T2=BYTES),
        "Range": row(11, T="double float int16 int32 int64", host=(0, 1, 2)),
        "ReduceMin": row(1, 17, T=f"{FLOATS} {INDEX} {BYTES}"),
        "ReduceProd": row(1, 17, T=f"{FLOATS} int32"),
        "Relu": row(14, T=FLOATS_AND_BF16),
        "Reshape": row(14, 18, T=ANY, shape=SHAPE, host=(1,)),
        "RoiAlign": row(10, T1="double float", T2="int64"),
        "ScatterElements": row(16, 17, T=ANY, Tind=INDEX),
        "Shape": row(15, 18, T=ANY, T1=SHAPE, host_out=(0,)),
        "Sigmoid": row(13, T=FLOATS_AND_BF16),
        "Slice": row(13, T=ANY, Tind=INDEX, host=(1, 2, 3, 4)),
        "Softmax": row(13, T=FLOATS_AND_BF16),
        "Split": row(13, 17, T=ANY, host=(1,)),
        "Sqrt": row(13, T=FLOATS_AND_BF16),
        "Squeeze": row(13, 20, T=ANY, host=(1,)),
        "Sub": row(14, T=NUMBERS),
        "TopK": row(11, T=f"{FLOATS} {INDEX}", I="int64", host=(1,)),
        "Transpose": row(13, 20, T=ANY),
        "Unsqueeze": row(13, 20, T=ANY, host=(1,)),
        "Where": row(16, B="bool", T=f"{FLOATS_AND_BF16} {INDEX} uint8"),
    }
)

# The list is made of kernels' type constraints, and these have none: not on the CPU's list either, where they do run.
# Source: onnxruntime/core/providers/cuda/object_detection/non_max_suppression.cc.
UNLISTED: Mapping[str, Kernel] = types.MappingProxyType({"NonMaxSuppression": row(11, host=(2, 3, 4))})
