"""`landmark-onnx embed --update`: the folder is what a fresh one would be, and only what is not known is embedded."""

import dataclasses
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx import Retriever
from landmark_onnx.embedding import swap, update_features
from landmark_onnx.embedding.feature_folder import open_features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.item import ItemFile
from landmark_onnx.embedding.job import embed, here
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import ListPart
from landmark_onnx.embedding.request import EmbedProgress, FeatureRequest
from landmark_onnx.errors import FeatureError
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.runtime.session import Session

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def retriever(tmp_path_factory) -> Retriever:
    """Images run one by one: then a vector depends on its image alone, to the bit."""
    path = fakes.make_retrieval(tmp_path_factory.mktemp("model") / "model.onnx", dim=8)
    return Retriever(path, threads=1, batch_size=1)


@pytest.fixture(scope="module")
def wanted(retriever) -> FeatureRequest:
    return FeatureRequest(models=[identify(retriever)], shard_size=3)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """The working folder, with 8 photos in photos/ and below."""
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        photo(f"{'a/' if number % 3 else ''}{number}.png", number)
    return tmp_path


def photo(name: str, seed: int) -> Path:
    path = Path("photos", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, fakes.photo(64, 64 + 8 * (seed % 2), seed=seed))
    return path


def contents(folder: str) -> dict[str, bytes]:
    """The files that are not hidden."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


class Updates:
    """Calls of update and of a fresh embed, of the same images."""

    def __init__(self, retriever: Retriever, request: FeatureRequest, folder: str = "features") -> None:
        self.request, self.folder = request, folder
        self.work = here([retriever])
        self.said: list[str] = []
        self.counts: tuple[int, int, int] | None = None

    def update(self, *arguments: str, **change):
        self.counts = None
        progress = EmbedProgress(
            on_update=lambda counts: setattr(self, "counts", (counts.kept, counts.fresh, counts.gone)),
            on_bad=self.said.append,
        )
        request = dataclasses.replace(self.request, **change)
        items = list_items(arguments or ["photos"])
        return update_features(items, request, Path(self.folder), self.work, progress=progress)

    def check(self, *arguments: str, **change) -> tuple[int, int, int] | None:
        """Update, and compare with a fresh folder, byte by byte; images kept, embedded, gone."""
        shutil.rmtree("fresh", ignore_errors=True)
        self.update(*arguments, **change)
        request = dataclasses.replace(self.request, **change)
        embed(list_items(arguments or ["photos"]), request, Path("fresh"), self.work)
        assert contents(self.folder) == contents("fresh")
        assert {path.name for path in Path(self.folder).iterdir()} - contents(self.folder).keys() <= {".lock"}
        return self.counts


@pytest.fixture
def updates(photos, retriever, wanted) -> Updates:
    """With a folder of features that is up to date."""
    found = Updates(retriever, wanted)
    assert found.check() is None
    return found


# --- What is the same as a fresh folder ---

NAMES = st.sampled_from([f"{folder}{name}.png" for folder in ("", "a/", "z/") for name in "abcd"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.integers(0, 5)),
        st.tuples(st.just("spoil"), NAMES, st.just(0)),
        st.tuples(st.just("remove"), NAMES, st.just(0)),
        st.tuples(st.just("touch"), NAMES, st.integers(1, 9)),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(st.just("copy"), NAMES, NAMES),
    ),
    max_size=6,
)


def change(kind: str, name: str, more, clock: list[int]) -> None:
    """A step; each write has a time of its own, as if a second were between."""
    path = Path("photos", name)
    if kind == "write":
        photo(name, more)
    elif kind == "spoil":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    elif not path.exists():
        return
    elif kind == "remove":
        path.unlink()
    elif kind in ("move", "copy"):
        target = Path("photos", more)
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == "move":
            path.replace(target)
        elif path != target:
            shutil.copy2(path, target)
        return
    if path.exists():
        clock[0] += 1
        os.utime(path, (clock[0], clock[0]))


def state() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path("photos").rglob("*.png")}


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=1, max_size=4))
def test_after_any_changes_it_is_a_fresh_folder(tmp_path_factory, monkeypatch, retriever, wanted, rounds):
    monkeypatch.chdir(tmp_path_factory.mktemp("update"))
    photo("first.png", 99)
    clock = [1_000_000_000]
    updates = Updates(retriever, wanted)
    updates.check()
    for steps in rounds:
        known = {data for data in state().values() if data != b"no image"}
        before = state()
        for step in steps:
            change(*step, clock)
        after = state()
        fresh = sum(data not in known for data in after.values())
        gone = sum(before[name] in known and name not in after for name in before)
        kept, embedded, dropped = updates.check()
        assert (kept, embedded) == (len(after) - fresh, fresh)
        assert dropped <= gone


def test_only_what_changed_is_embedded(updates, monkeypatch):
    ran = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, feeds: ran.append(1) or run(self, feeds))
    updates.update()
    assert updates.counts == (8, 0, 0)
    photo("0.png", 77)
    photo("new.png", 78)
    Path("photos/3.png").unlink()
    Path("photos/6.png").rename("photos/moved.png")
    assert not ran
    updates.update()
    assert updates.counts == (6, 2, 1)
    assert len(ran) == 2
    monkeypatch.undo()


def sources_read(updates: Updates) -> list[str]:
    """The images that an update reads, to compare or to embed them."""
    read = []

    def noted(self, *arguments, real=ItemFile.read):
        read.append(self._item.source)
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemFile, "read", noted)
        updates.update()
    return read


def test_files_that_stay_are_not_read_and_shards_that_stay_are_not_written(updates):
    photo("z.png", 50)
    before = {path.name: path.stat().st_ino for path in Path("features").glob("part-*")}
    assert set(sources_read(updates)) == {"photos/z.png"}
    after = {path.name: path.stat().st_ino for path in Path("features").glob("part-*")}
    assert {name for name, number in before.items() if after[name] == number} == {"part-00000.parquet"}
    assert updates.check() == (9, 0, 0)


def test_a_touched_file_is_read_once_and_not_embedded(updates):
    os.utime("photos/0.png", (5, 5))
    assert sources_read(updates) == ["photos/0.png"]
    assert updates.check() == (8, 0, 0)
    assert sources_read(updates) == []


def test_images_may_be_given_otherwise_and_from_elsewhere(updates, tmp_path, monkeypatch):
    assert updates.check("./photos") == (8, 0, 0)
    assert updates.check(str(tmp_path / "photos")) == (8, 0, 0)
    Path("list.txt").write_text("photos/3.png\nphotos/0.png\nphotos/3.png\n")
    assert updates.check("list.txt") == (3, 0, 6)
    assert open_features(Path("features")).ids() == ["photos/3.png", "photos/0.png", "photos/3.png"]


def test_what_failed_is_tried_again(updates):
    Path("photos/0.png").write_bytes(b"no image")
    assert updates.check() == (7, 1, 0)
    assert updates.check() == (7, 1, 0)
    photo("0.png", 0)
    assert updates.check() == (7, 1, 0)
    assert not open_features(Path("features")).manifest.failed


def test_members_of_a_tar(updates):
    tar = Path("photos/x.tar")
    for name in ("0.png", "3.png"):
        with tarfile.open(tar, "a") as file:
            file.add(f"photos/{name}", name)
    assert updates.check() == (10, 0, 0)
    data = bytearray(tar.read_bytes())
    photo("new.png", 31)
    with tarfile.open(tar, "a") as file:
        file.add("photos/new.png", "new.png")
    Path("photos/new.png").unlink()
    assert updates.check() == (10, 1, 0)
    data[next(list_items([str(tar)])).offset + 100] ^= 1
    tar.write_bytes(data)
    os.utime(tar, (5, 5))
    kept, fresh, _ = updates.check()
    assert (kept, fresh) == (9, 1)


def test_batches_of_several_images_change_at_most_the_last_bits(photos, retriever, wanted):
    several = Retriever(retriever.session.path, threads=1, batch_size=4)
    updates = Updates(several, wanted)
    updates.update()
    photo("a/45.png", 45)
    updates.update()
    features = open_features(Path("features"))
    fresh = embed(list_items(["photos"]), wanted, Path("fresh"), updates.work)
    assert (features.ids(), features.sources()) == (fresh.ids(), fresh.sources())
    name = features.models[0].name
    np.testing.assert_allclose(features.vectors(name), fresh.vectors(name), rtol=1e-5, atol=1e-6)


def test_a_part_of_a_list_is_updated_too(photos, retriever, wanted):
    updates = Updates(retriever, wanted)
    updates.check(part=ListPart(1, 2))
    photo("00.png", 60)
    photo("a/4.png", 61)
    updates.check(part=ListPart(1, 2))
    with pytest.raises(FeatureError, match=r"its vectors are others: --shard-of 1/2; now 2/2"):
        updates.update(part=ListPart(2, 2))


# --- Stopped, damaged, refused ---


def interrupted_after(patch, count: int) -> None:
    """Ctrl-C before the model runs once more than so often."""
    run = Session.run
    seen = []

    def interrupt(self, feeds):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(1)
        return run(self, feeds)

    patch.setattr(Session, "run", interrupt)


def stop(updates: Updates, count: int, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, count)
        with pytest.raises(KeyboardInterrupt):
            updates.update(*arguments)


def test_stopped_it_goes_on_and_readers_have_the_old_rows_meanwhile(updates):
    before = contents("features")
    for number in range(20, 27):
        photo(f"a/{number}.png", number)
    for count in (2, 1, 2):
        stop(updates, count)
        assert contents("features") == before
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 2)
        assert updates.update().count == 15
    assert updates.check() == (15, 0, 0)


def test_stopped_and_the_images_change_meanwhile(updates):
    for number in range(20, 27):
        photo(f"a/{number}.png", number)
    stop(updates, 4)
    photo("a/20.png", 55)
    photo("a/0.png", 56)
    Path("photos/a/26.png").unlink()
    stop(updates, 1)
    photo("b.png", 57)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 4)
        updates.update()
    assert updates.counts[1] == 4
    assert updates.check() == (16, 0, 0)


def test_a_first_run_that_was_stopped_goes_on_with_other_images(photos, retriever, wanted):
    updates = Updates(retriever, wanted)
    stop(updates, 5)
    photo("00.png", 70)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 4)
        updates.update()
    assert updates.counts == (5, 4, 0)
    assert updates.check() == (9, 0, 0)
    shutil.rmtree("features")
    stop(updates, 5)
    assert updates.check() == (9, 0, 0)


def stop_between(updates: Updates) -> None:
    """Stop an update while shards change places."""
    photo("0.png", 90)
    with pytest.MonkeyPatch.context() as patch:

        def stop(folder):
            raise KeyboardInterrupt

        patch.setattr(swap, "remove_parts", stop)
        with pytest.raises(KeyboardInterrupt):
            updates.update()
    with pytest.raises(FeatureError, match="not complete; run the same landmark-onnx embed again"):
        open_features(Path("features"))


@pytest.mark.parametrize("options", [{}, {"restart": True}])
def test_who_writes_next_completes_a_change_that_was_stopped(options, updates, wanted, monkeypatch):
    stop_between(updates)
    ran = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda self, feeds: ran.append(1) or run(self, feeds))
    features = embed(list_items(["photos"]), wanted, Path("features"), updates.work, **options)
    assert len(ran) == (8 if options else 0)
    assert features.count == 8
    assert not Path("features/.update").exists()
    assert updates.check() == (8, 0, 0)


def test_an_update_completes_a_change_that_was_stopped(updates):
    stop_between(updates)
    photo("3.png", 91)
    assert updates.check() == (7, 1, 0)


def test_rows_of_damaged_or_lost_shards_are_embedded_again(updates):
    Path("features/part-00000.parquet").write_bytes(b"damaged")
    Path("features/part-00002.parquet").unlink()
    assert updates.check() == (3, 5, 0)
    assert "part-00000.parquet: damaged" in updates.said[0]


def test_another_model_or_form_is_refused_with_the_remedy(updates, wanted):
    before = contents("features")
    other = dataclasses.replace(wanted.models[0], sha256="0" * 64)
    for change, words in (
        ({"models": [other]}, r": file [0-9a-f]{12}; now 000000000000"),
        ({"dtype": "float16"}, "--dtype float32; now float16"),
        ({"shard_size": 4}, "--shard-size 3; now 4"),
        ({"damaged": "accept"}, "--damaged refuse; now accept"),
    ):
        with pytest.raises(FeatureError, match=f"cannot be updated, its vectors are others: .*{words}.*--restart"):
            updates.update(**change)
    assert contents("features") == before
    assert not Path("features/.update").exists()


def test_a_folder_that_does_not_say_what_its_images_were_is_refused(photos, retriever, wanted, monkeypatch):
    updates = Updates(retriever, wanted)
    real = FeatureRequest.manifest
    with monkeypatch.context() as patch:
        patch.setattr(FeatureRequest, "manifest", lambda *a: dataclasses.replace(real(*a), recorded=False))
        updates.update()
    assert open_features(Path("features")).count == 8
    with pytest.raises(FeatureError, match=r"made before embed wrote down what its images were.*--restart"):
        updates.update()


def test_a_file_of_others_is_not_replaced(updates):
    Path("features/part-00003.parquet").write_bytes(b"mine")
    before = contents("features")
    for number in range(20, 23):
        photo(f"{number}.png", number)
    with pytest.raises(FeatureError, match=r"part-00003.parquet: is no shard of these features"):
        updates.update()
    assert contents("features") == before


def test_no_image_any_more_is_an_error_and_changes_nothing(updates):
    before = contents("features")
    shutil.rmtree("photos/a")
    for path in Path("photos").iterdir():
        path.unlink()
    with pytest.raises(FeatureError, match="no image"):
        updates.update()
    assert contents("features") == before


# --- The command ---


def test_the_command(run, photos):
    model = fakes.make_retrieval(photos / "model.onnx", dim=8)
    command = ("embed", "photos", "-m", model, "-o", "features", "--update", "--batch-size", 1)
    assert run(*command).code == 0
    photo("new.png", 30)
    Path("photos/0.png").unlink()
    refused = run(*command[:-3])
    assert (refused.code, "embed what changed with --update" in refused.err) == (1, True)
    done = run(*command)
    assert done.code == 0
    assert "update: 1 images to embed, 7 kept, 1 gone" in done.err
    assert done.err.splitlines()[-2:] == [
        "landmark-onnx: features: 8 of 8 images embedded",
        "landmark-onnx: an index does not follow by itself: landmark-onnx index build features -o INDEX --replace",
    ]
    assert run(*command, "--restart").code == 2
    Path("features/.update").mkdir()
    assert run(*command[:-3], "--restart").code == 0
    assert not Path("features/.update").exists()
