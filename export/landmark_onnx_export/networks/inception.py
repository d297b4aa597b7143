"""InceptionV4 as tables of steps.

Source: PaddlePaddle/Research, CV/landmark/inference/models.
"""

from typing import Literal, TypeAlias

from landmark_onnx_export.networks.layers import Conv, FeatureMap, Layers

Step: TypeAlias = "Conv | Literal['max', 'avg'] | list[list[Step]]"
"""A convolution, a 3x3 pooling, or branches whose outputs are concatenated."""


def _chain(*names_and_filters: tuple[str, int]) -> list[Step]:
    """Convolutions in a row; a name like 7x1_2 tells the kernel, and anything with `reduce` is 1x1."""
    return [Conv(name, filters, _kernel(name)) for name, filters in names_and_filters]


def _kernel(name: str) -> tuple[int, int]:
    height, width = name.split("_")[0].split("x")
    return (1, 1) if name.endswith("reduce") else (int(height), int(width))


_STEM: list[Step] = [
    Conv("conv1_3x3_s2", 32, (3, 3), stride=2, same=False),
    Conv("conv2_3x3_s1", 32, (3, 3), same=False),
    Conv("conv3_3x3_s1", 64, (3, 3)),
    [["max"], [Conv("inception_stem1_3x3_s2", 96, (3, 3), stride=2, same=False)]],
    [
        [Conv("inception_stem2_3x3_reduce", 64), Conv("inception_stem2_3x3", 96, (3, 3), same=False)],
        [
            Conv("inception_stem2_1x7_reduce", 64),
            Conv("inception_stem2_1x7", 64, (7, 1)),  # named the other way round in the release
            Conv("inception_stem2_7x1", 64, (1, 7)),
            Conv("inception_stem2_3x3_2", 96, (3, 3), same=False),
        ],
    ],
    [[Conv("inception_stem3_3x3_s2", 192, (3, 3), stride=2, same=False)], ["max"]],
]
_A: list[Step] = [
    [
        ["avg", *_chain(("1x1", 96))],
        _chain(("1x1_2", 96)),
        _chain(("3x3_reduce", 64), ("3x3", 96)),
        _chain(("3x3_2_reduce", 64), ("3x3_2", 96), ("3x3_3", 96)),
    ]
]
_REDUCTION_A: list[Step] = [
    [
        ["max"],
        [Conv("3x3", 384, (3, 3), stride=2, same=False)],
        [*_chain(("3x3_2_reduce", 192), ("3x3_2", 224)), Conv("3x3_3", 256, (3, 3), stride=2, same=False)],
    ]
]
_B: list[Step] = [
    [
        ["avg", *_chain(("1x1", 128))],
        _chain(("1x1_2", 384)),
        _chain(("1x7_reduce", 192), ("1x7", 224), ("7x1", 256)),
        _chain(("7x1_2_reduce", 192), ("1x7_2", 192), ("7x1_2", 224), ("1x7_3", 224), ("7x1_3", 256)),
    ]
]
_REDUCTION_B: list[Step] = [
    [
        ["max"],
        [*_chain(("3x3_reduce", 192)), Conv("3x3", 192, (3, 3), stride=2, same=False)],
        [
            *_chain(("1x7_reduce", 256), ("1x7", 256), ("7x1", 320)),
            Conv("3x3_2", 320, (3, 3), stride=2, same=False),
        ],
    ]
]
_C: list[Step] = [
    [
        ["avg", *_chain(("1x1", 256))],
        _chain(("1x1_2", 256)),
        [*_chain(("1x1_3", 384)), [_chain(("1x3", 256)), _chain(("3x1", 256))]],
        [
            *_chain(("1x1_4", 384), ("1x3_2", 448), ("3x1_2", 512)),
            [_chain(("1x3_3", 256)), _chain(("3x1_3", 256))],
        ],
    ]
]
_INCEPTION: list[tuple[str, list[Step]]] = [
    ("", _STEM),
    *((f"inception_a{i}_", _A) for i in range(1, 5)),
    ("reduction_a_", _REDUCTION_A),
    *((f"inception_b{i}_", _B) for i in range(1, 8)),
    ("reduction_b_", _REDUCTION_B),
    *((f"inception_c{i}_", _C) for i in range(1, 4)),
]


def inception_v4(net: Layers, x: FeatureMap) -> FeatureMap:
    """InceptionV4: the rows of `_INCEPTION`, one after another."""
    for prefix, steps in _INCEPTION:
        x = net.concat(_run(net, x, prefix, steps))
    return x


def _run(net: Layers, x: FeatureMap, prefix: str, steps: list[Step]) -> list[FeatureMap]:
    """The outputs of the last step: several after branches, which only then are concatenated."""
    outputs = [x]
    for step in steps:
        x = net.concat(outputs)
        if isinstance(step, list):
            outputs = [output for branch in step for output in _run(net, x, prefix, branch)]
        elif isinstance(step, Conv):
            outputs = [net.conv(x, step._replace(name=prefix + step.name))]
        else:
            outputs = [net.pool(x, step, 3, *((1, 1) if step == "avg" else (2, 0)))]
    return outputs
