import subprocess
import sys

import pytest

import fakes
from adopted import write_card
from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.errors import CardError, UnknownModelError
from landmark_onnx.hub.remove import prune, remove
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.store.catalogue import exported_path, source_path
from landmark_onnx.store.locks import all_locked, locked
from landmark_onnx.store.records import record_path, record_verified, write_record
from landmark_onnx.store.status import stored_model
from stored import touch, with_data

NAME = fakes.RETRIEVAL


def fill(name=NAME):
    """A release with its record, and a verified model with weights beside it."""
    touch(source_path(name)).write_bytes(b"12345")
    write_record(source_path(name), {"sha256": "0" * 64})
    path = with_data(exported_path(name))
    record_verified(path, "0" * 64)
    return path, external_data(path)


def gone(removed):
    return {each.path.name for each in removed}


def test_all_but_the_hash_goes():
    path, data = fill()
    other = fakes.make_cls(exported_path(fakes.CLS))
    removed = remove(NAME)
    assert gone(removed) == {path.name, data.name, record_path(path).name, source_path(NAME).name}
    assert {each.path.name: each.size for each in removed}[f"{NAME}.tar"] == 5
    assert stored_model(NAME).state == "nothing"
    assert record_path(source_path(NAME)).exists()
    assert not data.exists()
    assert other.exists()
    assert gone(remove(NAME, forget=True)) == {f"{NAME}.tar.json"}
    assert remove(NAME, forget=True) == []


def test_the_users_card_goes_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path))
    own = write_card(tmp_path / "mine.toml")
    fakes.make_retrieval(exported_path("mine"))
    assert gone(remove("mine")) == {"mine.onnx"}
    assert gone(remove("mine", card=True)) == {"mine.toml"}
    assert not own.exists()
    with pytest.raises(UnknownModelError):
        remove("mine")
    fill()
    with pytest.raises(CardError, match=f"{NAME}: its card comes with landmark-onnx"):
        remove(NAME, card=True)
    assert exported_path(NAME).exists()


def test_only_one_of_the_two():
    path, data = fill()
    assert gone(remove(NAME, model=False)) == {f"{NAME}.tar"}
    assert path.exists()
    assert data.exists()
    fill()
    remove(NAME, source=False)
    assert source_path(NAME).exists()
    assert not path.exists()


def test_weights_that_another_model_has_too_stay():
    path, data = fill()
    twin = exported_path("twin")
    twin.write_bytes(path.read_bytes())
    assert data.name not in gone(remove(NAME))
    assert data.exists()


def test_a_damaged_model_goes_too():
    path = touch(exported_path(NAME))
    assert gone(remove(NAME)) == {path.name}


@pytest.mark.parametrize("name", ["none", "../models/x", ".."])
def test_what_nobody_knows_is_not_removed(name, store):
    touch(store / "models" / "x.onnx")
    with pytest.raises(UnknownModelError):
        remove(name)
    assert (store / "models" / "x.onnx").exists()


# --- What is left behind ---


def litter(name=NAME):
    """What killed programs leave of a model, each with its size."""
    models, sources = exported_path(name).parent, source_path(name).parent
    work = models / f".{name}.onnx.abc123.tmp"
    (work / "deep").mkdir(parents=True)
    (work / "converted.onnx").write_bytes(b"123")
    (work / "deep" / "file").write_bytes(b"4567")
    sizes = {work: 7}
    for path in (
        models / f".{name}.onnx.json.xyz.tmp",
        sources / f".{name}.tar.qwe.tmp",
        sources / f"{name}.tar.part",
        sources / f"{name}.tar.part.json",
        models / f"{name}-0123456789ab.onnx.data",
    ):
        touch(path).write_bytes(b"12")
        sizes[path] = 2
    return sizes


def test_litter_goes_and_all_else_stays(store):
    path, data = fill()
    kept = {each for each in store.rglob("*") if each.is_file()}
    sizes = litter() | litter("mine")
    stale = record_path(exported_path("mine"))
    stale.write_text("{}")
    assert {each.path: each.size for each in prune()} == sizes | {stale: 2}
    assert {each for each in store.rglob("*") if each.is_file() and each.parent.name != "locks"} == kept
    assert prune() == []
    assert path.exists()
    assert data.exists()


def test_an_empty_store_has_no_litter():
    assert prune() == []


def test_what_is_in_use_stays(store):
    mine, others = litter(), litter("other")
    orphans = {path for path in others if path.suffix == ".data"}
    program = f"""
from landmark_onnx.store.locks import locked
with locked({NAME!r}):
    print("locked", flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    # Whose the orphaned weights are, nobody can tell while somebody is at work.
    assert {each.path for each in prune()} == others.keys() - orphans
    assert all(path.exists() for path in mine)
    holder.kill()
    holder.communicate()
    assert {each.path for each in prune()} == mine.keys() | orphans


@pytest.mark.parametrize("known", [True, False])
def test_nobody_begins_while_all_is_locked(known):
    program = f"""
from landmark_onnx.store.locks import locked
print("begin", flush=True)
with locked({NAME!r}):
    print("locked", flush=True)
"""
    if known:
        with locked(NAME):
            pass
    with all_locked() as busy:
        assert busy == set()
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begin\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    assert process.communicate(timeout=10)[0] == "locked\n"


def test_weights_of_a_model_that_cannot_be_read_stay():
    path, data = fill()
    path.write_bytes(path.read_bytes()[:-10])
    assert data.name not in gone(prune())
    path.unlink()
    assert data.name in gone(prune())


def test_a_link_goes_without_what_it_leads_to(tmp_path, store):
    target = touch(tmp_path / "folder" / "file")
    (store / "models").mkdir(parents=True)
    link = store / "models" / ".x.tmp"
    link.symlink_to(target.parent)
    assert gone(prune()) == {".x.tmp"}
    assert target.exists()
