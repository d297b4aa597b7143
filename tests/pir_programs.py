"""Programs of Paddle 3 as JSON, as far as they are read without Paddle; what Paddle itself saves is in paddle3.py."""

import json
from typing import Any

WEIGHT, BIAS = "linear_0.w_0", "linear_0.b_0"
SHAPES = {BIAS: [4], WEIGHT: [3, 4]}


def attribute(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"N": name, "AT": {"#": kind, "D": value}}


def result(number: int, dims: list[int], dtype: str = "f32") -> dict[str, Any]:
    return {"%": number, "TT": {"#": "0.t_dtensor", "D": [{"#": f"0.t_{dtype}"}, dims, "NCHW", [], 0]}}


def op(kind: str, inputs: list[int], results: list[dict[str, Any]], *attributes: dict[str, Any]) -> dict[str, Any]:
    return {"#": kind, "A": list(attributes), "I": [{"%": number} for number in inputs], "O": results, "OA": []}


def program(image: tuple[int, ...] = (-1, 3, 224, 224), dtype: str = "f32", long_dtype: str = "float32") -> bytes:
    """The mean of an image through a linear layer: inputs and outputs as Paddle writes them, in its order."""
    parameters = [
        {"#": "p", "A": [0, 1, 1, name], "DA": [], "O": result(number, dims, dtype), "OA": [1, 0, 1], "QA": []}
        for number, (name, dims) in enumerate(SHAPES.items(), 1)
    ]
    named, shape = attribute("name", "0.a_str", "x"), attribute("shape", "1.a_intarray", list(image))
    of_type = attribute("dtype", "1.a_dtype", long_dtype)
    ops = [
        *parameters,
        op("1.data", [], [result(3, list(image), dtype)], named, shape, of_type),
        op("1.full_int_array", [], [result(4, [2], "i64")], attribute("value", "0.a_array", [2, 3])),
        op("1.mean", [3, 4], [result(5, [-1, 3], dtype)]),
        op("1.matmul", [5, 2], [result(6, [-1, 4], dtype)]),
        op("1.add", [6, 1], [result(7, [-1, 4], dtype)]),
        op("1.fetch", [7], [result(8, [-1, 4])], attribute("name", "0.a_str", "y"), attribute("col", "0.a_i32", 0)),
    ]
    blocks = [{"#": "block_0", "args": [], "ops": ops}]
    return json.dumps(
        {
            "base_code": {"magic": "pir", "trainable": True, "version": 4},
            "program": {"regions": [{"#": "region_0", "blocks": blocks}]},
        }
    ).encode()
