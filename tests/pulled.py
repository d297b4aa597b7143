"""Pulling in a process of its own, from a server of the test's."""

import dataclasses
import io
import tarfile
import threading

import fakes
import landmark_onnx.hub.pull as module
from landmark_onnx.cards.catalogue import card
from landmark_onnx.store.locks import locked

NAME = fakes.RETRIEVAL


def make_tar(seed: int = 0, size: int = 50_000, mode: str = "w") -> bytes:
    """A tar with a file of these bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name in ("a", "b"):
            member = tarfile.TarInfo(f"{NAME}/{name}")
            member.size = size
            tar.addfile(member, io.BytesIO(bytes([seed]) * size))
    return file.getvalue()


TAR = make_tar()


def host_is(monkeypatch, prefix, sha256=""):
    """Make every card's release be below this address."""

    def moved(name):
        found = card(name)
        source = dataclasses.replace(found.source, url=f"{prefix}{name}.tar", sha256=sha256)
        return dataclasses.replace(found, source=source)

    monkeypatch.setattr(module, "card", moved)


PULL = """
import sys, types
import fakes
from landmark_onnx.hub import exporter
from landmark_onnx.hub.pull import pull

def export_model(card, source, output, *, on_stage, beside=None):
    with open(sys.argv[1], "a") as file:
        file.write("exported\\n")
    fakes.make_retrieval(output, model_card=fakes.small_card(card.name))

fake = types.ModuleType("landmark_onnx_export.convert")
fake.export_model = export_model
sys.modules["landmark_onnx_export.convert"] = fake
exporter.EXPORTERS = ()
print(pull(fakes.RETRIEVAL))
"""


def background(work) -> threading.Thread:
    """Start `work` in a thread that the tests do not wait for if it hangs."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def hold(entered: list[str], name: str = NAME) -> None:
    with locked(name):
        entered.append(name)
