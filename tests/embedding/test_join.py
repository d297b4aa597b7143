"""`landmark-onnx embed --shard-of I/N` and `--join`: together they make what one run would have made."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx import Retriever
from landmark_onnx.embedding import join_features, swap, update_features
from landmark_onnx.embedding.feature_folder import Batch, open_features, write_features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.job import embed, here
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import ListPart
from landmark_onnx.embedding.request import FeatureRequest
from landmark_onnx.errors import FeatureError
from landmark_onnx.images.contact_sheet import write_image

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with 10 photos, one of them bad, and what embeds them one by one."""
    folder = tmp_path_factory.mktemp("join")
    for number in range(10):
        write_image(folder / f"photos/{number}.png", fakes.photo(64, 64 + 8 * (number % 2), seed=number))
    (folder / "photos/5.png").write_bytes(b"no image")
    retriever = Retriever(fakes.make_retrieval(folder / "model.onnx", dim=8), threads=1, batch_size=1)
    return folder, here([retriever]), FeatureRequest(models=[identify(retriever)], shard_size=3)


@pytest.fixture
def part(made, tmp_path, monkeypatch):
    """Makes a folder of part I/N of a list, by default of the photos; of the whole for 0/0."""
    folder, work, request = made
    monkeypatch.chdir(folder)

    def call(number: int, of: int, *arguments: str, **change) -> Path:
        wanted = dataclasses.replace(request, part=ListPart(number, of) if of else None, **change)
        items = list_items(arguments or ["photos"])
        return embed(items, wanted, tmp_path / f"{number}of{of}", work).folder

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=14), st.integers(1, 6), st.integers(1, 5), st.randoms())
def test_parts_joined_are_one_run_to_the_byte(made, tmp_path_factory, numbers, of, shard_size, chance):
    folder, work, request = made
    place = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        paths = [f"photos/{number}.png" for number in numbers]  # one is not there, others are there twice
        wanted = dataclasses.replace(request, shard_size=shard_size)
        whole = embed(list_items(paths), wanted, place / "whole", work)
        parts = [
            embed(list_items(paths), dataclasses.replace(wanted, part=ListPart(number, of)), place / str(number), work)
            for number in range(1, of + 1)
        ]
    assert sum(part.manifest.rows for part in parts) == len(paths)
    folders = [part.folder for part in parts]
    chance.shuffle(folders)
    joined = join_features(folders, place / "joined")
    assert contents(place / "joined") == contents(place / "whole")
    assert joined.failures() == whole.failures()
    assert {path.name for path in (place / "joined").iterdir()} - contents(place / "joined").keys() <= {".lock"}
    assert contents(join_features(folders, place / "joined").folder) == contents(place / "whole")


def test_the_part_of_an_image_depends_on_its_id_alone():
    ids = [f"photos/{number}.jpg" for number in range(4000)]
    parts = [ListPart(number, 7) for number in range(1, 8)]
    assert [sum(part.has(name) for part in parts) for name in ids] == [1] * len(ids)
    counts = [sum(map(part.has, ids)) for part in parts]
    assert all(500 < count < 650 for count in counts)
    # These are for ever: parts that another version makes must fit.
    assert [name for name in ids[:20] if parts[0].has(name)] == [f"photos/{number}.jpg" for number in (1, 13, 14)]


def test_a_part_without_images_is_a_folder_too(part, tmp_path):
    parts = [part(number, 3, "photos/0.png") for number in (1, 2, 3)]
    assert sorted(open_features(each).count for each in parts) == [0, 0, 1]
    assert join_features(parts, tmp_path / "joined").ids() == ["photos/0.png"]


def test_a_part_goes_on_and_a_column_tells_the_places(part):
    import pyarrow.parquet as pq

    parts = [part(number, 2) for number in (1, 2)]
    assert part(1, 2) == parts[0]
    positions = [pq.read_table(sorted(each.glob("part-*"))).column("position").to_pylist() for each in parts]
    assert sorted(positions[0] + positions[1]) == list(range(10))
    assert all(each == sorted(each) for each in positions)


def test_missing_foreign_and_unfinished_parts_are_refused(part, tmp_path):
    parts = {number: part(number, 4) for number in (1, 2, 3, 4)}
    target = tmp_path / "joined"

    def refused(words: str, *folders: Path) -> None:
        with pytest.raises(FeatureError, match=words):
            join_features(folders, target)
        assert not target.exists()

    refused(r"parts are missing: 2/4, 4/4; run embed with --shard-of these", parts[1], parts[3])
    shutil.copytree(parts[2], tmp_path / "twin")
    refused(r"twin: is part 2/4, as .*2of4 is", *parts.values(), tmp_path / "twin")
    refused(r"1of2: is part 1/2, and .*1of4 is part 1/4", *parts.values(), part(1, 2))
    refused(r"0of0: is not a part of a list", parts[1], part(0, 0))
    shutil.rmtree(parts[3])
    refused(r"no features.json", *parts.values())
    part(3, 4, "photos", "photos/0.png")
    refused(r"3of4: of another job than .*1of4: other images or ids", *parts.values())
    shutil.rmtree(parts[3])
    part(3, 4, dtype="float16")
    refused(r"3of4: of another job than .*1of4: --dtype float32; now float16", *parts.values())
    shutil.rmtree(parts[3])
    part(3, 4)
    manifest = open_features(parts[3]).manifest
    dataclasses.replace(manifest, complete=False).write(parts[3])
    refused(r"3of4: not complete; run the same", *parts.values())


def test_parts_that_were_made_in_several_folders(part, tmp_path, monkeypatch, made):
    photos = str(made[0] / "photos")
    parts = [part(1, 2, photos)]
    shutil.copytree("photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    parts.append(part(2, 2, photos))
    assert join_features(parts, tmp_path / "joined").count == 9
    relative = [part(1, 3), part(2, 3)]
    monkeypatch.chdir(made[0])
    relative.append(part(3, 3))
    with pytest.raises(FeatureError, match=r"photos/\d.png is below .*, and other parts are from elsewhere"):
        join_features(relative, tmp_path / "again")


def test_a_folder_of_other_features_is_kept(part):
    parts = [part(number, 2) for number in (1, 2)]
    other = part(0, 0, "photos/0.png")
    before = contents(other)
    with pytest.raises(FeatureError, match=r"holds features of another job.*--restart"):
        join_features(parts, other)
    assert contents(other) == before
    assert join_features(parts, other, restart=True).count == 9
    with pytest.raises(FeatureError, match="--shard-of 1/2; now None"):
        join_features(parts, parts[0])


def test_a_join_that_was_stopped_goes_on(part, tmp_path, monkeypatch):
    parts = [part(number, 2) for number in (1, 2)]
    whole = contents(part(0, 0))
    target = tmp_path / "joined"
    for count in range(1, 4):
        with monkeypatch.context() as patch:
            written = []

            def write(*arguments, real=swap.write_shard, written=written, count=count):
                if len(written) == count:
                    raise KeyboardInterrupt
                written.append(1)
                return real(*arguments)

            patch.setattr(swap, "write_shard", write)
            with pytest.raises(KeyboardInterrupt):
                join_features(parts, target)
        with pytest.raises(FeatureError, match="not complete"):
            open_features(target)
    join_features(parts, target)
    assert contents(target) == whole


def test_parts_that_are_updated_join_to_what_one_run_makes_now(part, tmp_path, made, monkeypatch):
    folder, work, request = made
    shutil.copytree(folder / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    parts = [part(number, 3) for number in (1, 2, 3)]
    for number in (0, 12, 35, 99):
        write_image(Path(f"photos/{number}.png"), fakes.photo(64, 64, seed=200 + number))
    Path("photos/7.png").unlink()
    Path("photos/8.png").rename("photos/00.png")
    with pytest.raises(FeatureError, match=r"of another job than .*: other images or ids"):
        join_features([update(parts[0], request, 1, work), *parts[1:]], tmp_path / "joined")
    parts = [update(path, request, number, work) for number, path in enumerate(parts, start=1)]
    assert contents(join_features(parts, tmp_path / "joined").folder) == contents(part(0, 0))


def update(folder: Path, request: FeatureRequest, number: int, work) -> Path:
    """Part `number` of 3, of the photos as they are now."""
    wanted = dataclasses.replace(request, part=ListPart(number, 3))
    return update_features(list_items(["photos"]), wanted, folder, work).folder


def test_vectors_that_were_there_before_are_no_part(tmp_path, made):
    vectors = {made[2].models[0].name: np.zeros((2, 8), np.float32)}
    features = write_features(tmp_path / "vectors", made[2].models, [Batch(["a", "b"], ["a", "b"], vectors)])
    with pytest.raises(FeatureError, match="is not a part of a list"):
        join_features([features.folder], tmp_path / "joined")


def test_the_command(run, made, tmp_path, monkeypatch):
    monkeypatch.chdir(made[0])
    command = ("embed", "photos", "-m", "model.onnx", "--batch-size", 1)
    for number in (1, 2, 3):
        done = run(*command, "-o", tmp_path / f"part{number}", "--shard-of", f"{number}/3")
        assert done.err.splitlines()[-1].startswith(f"landmark-onnx: part {number}/3 of the list; when all are there: ")
    run(*command, "-o", tmp_path / "whole")
    done = run("embed", "--join", str(tmp_path / "part*"), "-o", tmp_path / "joined")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1].endswith("joined: 9 of 10 images embedded")
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")
    missing = run("embed", "--join", tmp_path / "part1", tmp_path / "part3", "-o", tmp_path / "again")
    assert (missing.code, "parts are missing: 2/3" in missing.err) == (1, True)
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3"):
        assert run(*command, "-o", tmp_path / "f", f"--shard-of={wrong}").code == 2
    assert run("embed", "photos", "-o", tmp_path / "f").code == 2
    assert run("embed", "--join", tmp_path / "part1", "-o", tmp_path / "f", "-m", "model.onnx").code == 2
    assert run("embed", "--join", tmp_path / "part1", "-o", tmp_path / "f", "--update").code == 2
