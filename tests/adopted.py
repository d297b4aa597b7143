"""Models, cards and releases of a user's own, to be added to the store."""

import io
import tarfile

import onnx

import fakes

NAME = fakes.RETRIEVAL


CARD = """name = "{name}"
task = "{task}"
summary = "somebody's"
[preprocess]
resize = "exact"
size = 32
interpolation = "linear"
"""


def write_card(path, name="mine", task="retrieval", more=""):
    path.write_text(CARD.format(name=name, task=task) + more, encoding="utf-8")
    return path


def make_tar(path, name=NAME, mode="w"):
    with tarfile.open(path, mode) as tar:
        member = tarfile.TarInfo(f"{name}/fc_0.w_0")
        member.size = 1000
        tar.addfile(member, io.BytesIO(bytes(1000)))
    return path


def make_foreign(path, seed=0, **settings):
    """An ONNX model without a seal or a card."""
    made = fakes.make_retrieval(path, model_card=fakes.small_card(NAME), dim=16, seed=seed)
    onnx.save(fakes.unsealed(made), path, **settings)
    return path
