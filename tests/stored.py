"""Models and records in the store, as the tests want them."""

import hashlib

import fakes

NAME = "res152_arcmargin"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def with_data(path, *, name=None, keep=True, seed=0):
    """A model that says its weights are beside it; they are not read here."""
    data = b"weights" * 100
    sha256 = hashlib.sha256(data).hexdigest()
    model = fakes.unsealed(fakes.make_retrieval(path, seed=seed))
    path.write_bytes(model.SerializeToString())
    path.parent.mkdir(parents=True, exist_ok=True)
    name = name or f"{path.stem}-{sha256[:12]}.onnx.data"
    fakes.write_sealed(path, {"card": fakes.small_card(NAME).to_dict(), "data": {"file": name, "sha256": sha256}})
    if keep:
        path.with_name(name).write_bytes(data)
    return path
