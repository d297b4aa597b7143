"""Use mutated releases and images of one kind: `python fuzzing.py KIND COUNT FOLDER`.

Run by test_fuzz.py, in a process of its own.
A timer kills the process after ten seconds of the processor on one file; what crashed it is `current` in the folder.
"""

import contextlib
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from landmark_onnx.cards.catalogue import card
from landmark_onnx.images.decode import ReadOptions, read_image
from landmark_onnx.inference.preprocess import preprocess
from landmark_onnx_export.networks.build import build
from landmark_onnx_export.paddle import pir
from landmark_onnx_export.paddle.edits import converter_input, op_types, tensors, with_open_sizes
from landmark_onnx_export.paddle.variables import parse_program, read_params, read_variable
from landmark_onnx_export.releases.source import open_source
from landmark_onnx_export.synthetic.release import write_release
from mutants import edited_bytes, edited_json, edited_tar, either, random, run
from pir_programs import program as pir_program

RETRIEVAL, CLS, DET = "res152_arcmargin", "res152_softmax_v1", "res50_oid_v4_detector"


def edited_program(data: bytes) -> bytes:
    """A program that parses, but for one thing that is missing, doubled or renamed in it."""
    program = parse_program(data)
    block = program.blocks[0]
    kind = random.choice(["feed", "fetch", "any", "any"])
    op = random.choice([op for op in block.ops if kind in ("any", op.type)])
    var = random.choice(block.vars)
    slots = random.choice([op.inputs, op.outputs])
    match random.randrange(9):
        case 0:
            del slots[:]
        case 1 if slots:
            del random.choice(slots).arguments[:]
        case 2 if slots:
            random.choice(slots).arguments.append(random.choice(block.vars).name)
        case 3:
            del op.attrs[:]
        case 4 if op.attrs:
            random.choice(op.attrs).ClearField(random.choice(["i", "f", "ints", "floats", "s", "b"]))
        case 5:
            var.type.ClearField(var.type.DESCRIPTOR.fields_by_number[3].name)
        case 6:
            var.persistable = not var.persistable
        case 7:
            op.type = random.choice(["feed", "fetch", "roi_align", "multiclass_nms", "box_coder", "unheard_of"])
        case _:
            var.name = random.choice(block.vars).name
    return bytes(program.SerializeToString())


def variables(count: int, folder: Path) -> None:
    """Variable files, alone and joined to a params file."""
    streams = []
    with open_source(write_release(card(CLS), folder)) as source:
        for name in ("fc_0.w_0", "fc_0.b_0", "conv1_1_weights"):
            with (folder / name).open("wb") as out:
                source.variables[name].copy_stream(out)
            streams.append((folder / name).read_bytes())
    path = folder / "mutant"

    def use_variable(data: bytes) -> None:
        path.write_bytes(data)
        variable = read_variable(path, "variable")
        assert variable.read().nbytes == variable.nbytes <= len(data)

    def use_params(data: bytes) -> None:
        path.write_bytes(data)
        read_params(path, ["a", "b", "c"])

    run("variables", streams, use_variable, count // 2, folder)
    run("params", [b"".join(streams)], use_params, count // 2, folder)


def programs(count: int, folder: Path) -> None:
    """Programs whose bytes are edited, and programs that parse all the same."""
    seeds = []
    for name in (DET, RETRIEVAL):
        facts = card(name)
        with open_source(write_release(facts, folder)) as source:
            seeds.append(source.program or build(facts.source.network, facts.task, source.variables))

    def use(data: bytes) -> None:
        program = parse_program(data)
        tensors(program, card("res50_oid_v4_detector" if len(program.blocks[0].ops) < 300 else "res152_arcmargin"))
        op_types(with_open_sizes(data))
        converter_input(data)

    run("programs", seeds, use, count // 2, folder)
    run("programs that parse", seeds, use, count // 2, folder, edited_program)

    def use_pir(data: bytes) -> None:
        pir.parse_pir(pir.with_open_sizes(pir.in_float32(data))).tensors(card("res152_arcmargin"))

    run("programs of Paddle 3", [pir_program()], use_pir, count, folder, edited_json)


def tars(count: int, folder: Path) -> None:
    """Releases of both kinds, plain and compressed."""
    train, binary = (write_release(card(name), folder).read_bytes() for name in (CLS, DET))
    path = folder / "release.tar"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        with open_source(path) as source:
            assert all(variable.read().nbytes == variable.nbytes for variable in source.variables.values())
            source.read_text(card(DET).source.labels)

    edit = either(edited_bytes, edited_bytes, edited_tar)
    run("tars", [train, binary, gzip.compress(train, 1)], use, count, folder, edit)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Without OpenCV's own word on each damaged file."""
    level = cv2.getLogLevel() if hasattr(cv2, "getLogLevel") else None
    if level is not None:
        cv2.setLogLevel(0)
    yield
    if level is not None:
        cv2.setLogLevel(level)


def images(count: int, folder: Path) -> None:
    """Encoded images of six formats."""
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (120, 90))
    suffixes = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm")

    def use(data: bytes) -> None:
        pixels = read_image(data, options=ReadOptions(max_pixels=4_000_000))
        assert (pixels.dtype, pixels.ndim) == (np.uint8, 3)
        for name in (RETRIEVAL, CLS):
            preprocess(card(name).preprocess, pixels)

    with quiet_opencv():
        run("images", [cv2.imencode(suffix, image)[1].tobytes() for suffix in suffixes], use, count, folder)


KINDS = {kind.__name__: kind for kind in (variables, programs, tars, images)}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
