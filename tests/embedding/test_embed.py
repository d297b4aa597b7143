"""`landmark-onnx embed`: images of every kind of argument, rows, resuming, refusals."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import re
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import fakes
from commands import Done
from landmark_onnx import Retriever
from landmark_onnx.cli.eta import Pace, duration
from landmark_onnx.cli.inputs import matches
from landmark_onnx.embedding import extract, job, shards
from landmark_onnx.embedding.feature_folder import Features, open_features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import FeatureManifest, ModelIdentity
from landmark_onnx.embedding.parts import PARTS
from landmark_onnx.embedding.request import FeatureRequest
from landmark_onnx.errors import FeatureError, SearchError, SessionError
from landmark_onnx.images import decode
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.ids import IdRule, image_id
from landmark_onnx.inference import pipeline
from landmark_onnx.inference.tee import Fan
from landmark_onnx.results import Embedding
from landmark_onnx.runtime.session import Session
from landmark_onnx.search.feature_rows import choose
from landmark_onnx.store.catalogue import exported_path

pytest.importorskip("pyarrow")

MODEL = fakes.RETRIEVAL


@pytest.fixture
def run(run):
    """`landmark-onnx embed` in this process, which has nothing to say on standard output."""

    def call(*arguments) -> Done:
        done = run("embed", *arguments)
        assert done.out == ""
        return done

    return call


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """The working folder, with 10 photos of two shapes in photos/ and below, and a small model in the store."""
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        name = f"photos/{'ab'[number // 4]}/{number:016x}.png" if number < 8 else f"photos/{number}.png"
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_image(Path(name), fakes.photo(90, 120 if number % 3 else 90, seed=number))
    fakes.make_retrieval(exported_path(MODEL))
    return tmp_path


def other_model(path: Path, **card) -> Path:
    """A second model: another name, another size of input, 7 values."""
    small = fakes.small_card(fakes.RETRIEVAL, size=96)
    return fakes.make_retrieval(path, model_card=dataclasses.replace(small, name="other", **card), dim=7, seed=5)


def contents(folder: Path) -> dict[str, bytes]:
    """The files that are not hidden."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def expected(features: Features, model: str, path: Path) -> None:
    """The vectors are those of the model asked one image at a time."""
    retriever = Retriever(path, threads=1)
    want = np.stack([retriever(source).vector for source in features.sources()])
    np.testing.assert_allclose(features.vectors(model), want, rtol=1e-5, atol=1e-6)


def make_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def png(seed: int) -> bytes:
    return cv2.imencode(".png", fakes.photo(70, 80, seed=seed))[1].tobytes()


# --- A whole run ---


def test_a_folder_of_images_becomes_a_folder_of_features(run, photos):
    (photos / "photos/bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    done = run("photos", "-m", MODEL, "-o", "features", "--shard-size", 4)
    assert done.code == 1
    assert "error: photos/bad.jpg: " in done.err
    assert "features: 10 of 11 images embedded" in done.err
    assert sorted(contents(photos / "features")) == ["features.json", *(f"part-0000{n}.parquet" for n in range(3))]
    features = open_features(photos / "features")
    assert features.ids() == ["8.png", "9.png", *(f"{number:016x}" for number in range(8))]
    assert features.sources()[:3] == ["photos/8.png", "photos/9.png", "photos/a/0000000000000000.png"]
    ((name, source, error),) = features.failures()
    assert (name, source) == ("bad.jpg", "photos/bad.jpg")
    assert not error.startswith("photos")
    expected(features, MODEL, exported_path(MODEL))


def test_two_models_share_one_pass(run, photos, monkeypatch):
    other = other_model(photos / "other.onnx")
    (photos / "photos/bad.jpg").write_bytes(b"no image")
    (photos / "list.txt").write_text("photos/9.png\nmissing.png\nphotos/8.png\n")
    read = []
    monkeypatch.setattr(decode, "_encoded", lambda *a, real=decode._encoded: read.append(a[1]) or real(*a))
    done = run("photos", "list.txt", "-m", MODEL, "-m", other, "-o", "features", "--shard-size", 5)
    assert done.code == 1
    assert sorted(read) == sorted([*features_sources(photos), "photos/bad.jpg", "missing.png"])
    features = open_features(photos / "features")
    assert [(model.name, model.dim) for model in features.models] == [(MODEL, 512), ("other", 7)]
    assert [error for *_, error in features.failures()] == [
        "not an image: no JPEG, PNG, WebP, BMP, TIFF, GIF, PNM, JPEG 2000, AVIF or HEIC header",
        "cannot be read: No such file or directory",
    ]
    expected(features, MODEL, exported_path(MODEL))
    expected(features, "other", other)


def features_sources(photos: Path) -> list[str]:
    return open_features(photos / "features").sources()


def test_half_precision(run, photos):
    assert run("photos", "-m", MODEL, "-o", "half", "--dtype", "float16").code == 0
    assert run("photos", "-m", MODEL, "-o", "full").code == 0
    half, full = (open_features(photos / name).vectors(MODEL) for name in ("half", "full"))
    np.testing.assert_array_equal(half, full.astype(np.float16).astype(np.float32))


def test_a_value_beyond_half_precision_fails_its_row(run, photos, monkeypatch):
    huge = np.full(512, 1e6, np.float32)
    monkeypatch.setattr("landmark_onnx.model.to_embedding", lambda *_: Embedding(vector=huge))
    done = run("photos", "-m", MODEL, "-o", "half", "--dtype", "float16")
    assert done.code == 1
    assert "a value of its vector is beyond float16" in done.err


def test_every_image_may_be_bad(run, photos):
    (photos / "list.txt").write_text("".join(f"no{number}.png\n" for number in range(30)))
    done = run("list.txt", "-m", MODEL, "-o", "features", "--shard-size", 20)
    assert done.code == 1
    assert done.err.count("No such file") == 20
    assert "10 more images failed: column error of features has them" in done.err
    features = open_features(photos / "features")
    assert features.vectors(MODEL).shape == (0, 512)
    assert len(features.failures()) == 30
    assert list(features.batches(4)) == []


# --- What the arguments mean ---


@pytest.mark.parametrize(
    ("name", "rule", "want"),
    [
        ("0/a/b/0ab1234567890def.jpg", IdRule.AUTO, "0ab1234567890def"),
        ("0/a/b/0AB1234567890DEF.jpg", IdRule.AUTO, "0/a/b/0AB1234567890DEF.jpg"),
        ("jpg/oxford_000013.jpg", IdRule.AUTO, "jpg/oxford_000013.jpg"),
        ("jpg/oxford_000013.jpg", IdRule.STEM, "oxford_000013"),
        ("0/a/b/0ab1234567890def.jpg", IdRule.PATH, "0/a/b/0ab1234567890def.jpg"),
        ("x/\udcff.jpg", IdRule.PATH, "x/\\udcff.jpg"),
        ("towers/tower_3.5m.jpg", IdRule.STEM, "tower_3.5m"),
        ("tower_3.5m", IdRule.STEM, "tower_3.5m"),
        ("towers/tower.png.JPG", IdRule.STEM, "tower.png"),
        ("0ab1234567890def", IdRule.AUTO, "0ab1234567890def"),
        ("0ab1234567890def.tower", IdRule.AUTO, "0ab1234567890def.tower"),
    ],
)
def test_what_an_image_is_called(name, rule, want):
    assert image_id(name, rule) == want


def test_lists_patterns_and_standard_input(photos, monkeypatch, run):
    for name in ("list.txt", "list"):
        Path(name).write_bytes(b"\xef\xbb\xbfphotos/8.png\r\n\nphotos/9.png")
    assert [item.source for item in list_items(["list.txt"])] == ["photos/8.png", "photos/9.png"]
    with Path("list").open(encoding="utf-8") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert [item.source for item in list_items(["-"])] == ["photos/8.png", "photos/9.png"]
    assert run("photos/*.png", "-m", MODEL, "-o", "features").code == 0
    assert open_features(photos / "features").ids() == ["photos/8.png", "photos/9.png"]


def test_with_a_root_ids_are_the_same_however_images_are_given(run, photos):
    for number in (0, 9):
        write_image(photos / f"photos/a/tower{number}.png", fakes.photo(64, 64, seed=number))
    (photos / "link").symlink_to("photos")
    absolute = sorted(str(path) for path in (photos / "photos").rglob("*.png"))
    (photos / "photos/list.txt").write_text("\n".join(absolute))
    ways = (["photos"], ["photos/../photos/a", "photos/b", "photos/*.png"], absolute, ["photos/list.txt"], ["./link"])
    for root in ("photos", "./photos/", str(photos / "link")):
        found = [sorted(item.id for item in list_items(expanded(way), root=root)) for way in ways]
        assert found[0][:2] == ["0000000000000000", "0000000000000001"]
        assert found[0][-2:] == ["a/tower0.png", "a/tower9.png"]
        assert all(ids == found[0] for ids in found)
    assert run("photos/a", "-m", MODEL, "-o", "features", "--root", "photos", "--ids", "path").code == 0
    assert open_features(photos / "features").ids()[-1] == "a/tower9.png"
    assert (
        "photos/9.png: not below --root photos/b; name a"
        in run("photos/9.png", "-m", MODEL, "-o", "f", "--root", "photos/b").err
    )
    make_tar(photos / "x.tar", {"in/a.png": png(0)})
    assert [item.id for item in list_items(["x.tar"], root="photos/b")] == ["in/a.png"]
    assert run("photos", "-m", MODEL, "-o", "f", "--root", "nowhere").code == 2


def expanded(arguments):
    return [path for argument in arguments for path in matches(argument)]


def test_ids_that_several_images_have_are_told(run, photos):
    (photos / "photos/c").mkdir()
    (photos / "photos/c/8.png").write_bytes((photos / "photos/8.png").read_bytes())
    done = run("photos", "-m", MODEL, "-o", "features", "--ids", "stem")
    assert done.code == 0
    assert "2 images have the id 8: photos/8.png, photos/c/8.png" in done.err
    assert open_features(photos / "features").ids().count("8") == 2


def test_nothing_to_embed(run, photos):
    (photos / "empty").mkdir()
    assert "empty: no image and no .tar in this folder" in run("empty", "-m", MODEL, "-o", "f").err
    (photos / "empty.txt").write_text("\n")
    assert "no image was given" in run("empty.txt", "-m", MODEL, "-o", "f").err
    assert "none.txt: No such file" in run("none.txt", "-m", MODEL, "-o", "f").err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(run, photos):
    (photos / "photos/a").chmod(0)
    assert "photos/a: Permission denied" in run("photos/a", "-m", MODEL, "-o", "f").err
    (photos / "photos/a").chmod(0o700)


def test_a_folder_that_cannot_be_read_is_one_line(photos, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FeatureError, match="photos: Permission denied"):
        list(list_items(["photos"]))


# --- Tars ---


def test_a_tar_of_gldv2(run, photos):
    members = {f"{number:x}/0/0/{number:016x}.jpg": png(number) for number in range(5)}
    tar = make_tar(photos / "images_007.tar", members | {"0/README": b"text", "0/.hidden.jpg": b""})
    md5 = hashlib.md5(tar.read_bytes()).hexdigest()
    (photos / "md5.images_007.txt").write_text(f"{md5}  images_007.tar\n")
    assert run("images_007.tar", "-m", MODEL, "-o", "features", "--shard-size", 2).code == 0
    features = open_features(photos / "features")
    assert features.ids() == [f"{number:016x}" for number in range(5)]
    assert features.sources()[1] == "images_007.tar:1/0/0/0000000000000001.jpg"
    retriever = Retriever(exported_path(MODEL))
    want = np.stack([retriever(data).vector for data in members.values()])
    np.testing.assert_allclose(features.vectors(MODEL), want, rtol=1e-5, atol=1e-6)


def test_a_folder_of_tars_and_two_models(run, photos):
    for number in range(2):
        make_tar(photos / f"photos/images_00{number}.tar", {f"{number}.png": png(number), "bad.png": b"no"})
    other = other_model(photos / "other.onnx")
    done = run("photos", "-m", MODEL, "-m", other, "-o", "features", "--shard-size", 3)
    assert done.code == 1
    features = open_features(photos / "features")
    assert features.count == 12
    assert [source for _, source, _ in features.failures()] == [f"photos/images_00{n}.tar:bad.png" for n in range(2)]


@pytest.mark.parametrize(("note", "words"), [("0" * 32, "damaged: wanted md5 000"), ("what?", "wanted an md5 of")])
def test_a_tar_that_is_not_what_its_md5_says(note, words, run, photos):
    make_tar(photos / "images_000.tar", {"a.png": png(0)})
    (photos / "md5.images_000.txt").write_text(note)
    done = run("images_000.tar", "-m", MODEL, "-o", "features")
    assert done.code == 1
    assert words in done.err
    assert contents(photos / "features") == {}


def test_hostile_members_are_refused_one_by_one(run, photos):
    link, device, folder = (tarfile.TarInfo(name) for name in ("link.jpg", "device.jpg", "folder.jpg"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type, folder.type = tarfile.CHRTYPE, tarfile.DIRTYPE
    members = {"../up.jpg": png(0), "/etc/root.jpg": png(1), "l": link, "d": device, "f": folder}
    make_tar(photos / "x.tar", {**members, "nested/inner.tar": b"0" * 512, "good.jpg": png(2)})
    done = run("x.tar", "-m", MODEL, "-o", "features")
    assert done.code == 1
    features = open_features(photos / "features")
    assert features.ids() == ["good.jpg"]
    failures = {name: error for name, _, error in features.failures()}
    assert set(failures) == {"../up.jpg", "/etc/root.jpg", "link.jpg", "device.jpg"}
    assert all(error.startswith("refused: ") for error in failures.values())
    assert sorted(path.name for path in photos.iterdir()) == ["features", "photos", "store", "x.tar"]


def test_a_member_of_a_size_that_lies_does_not_end_the_job(run, photos):
    odd = tarfile.TarInfo("odd.jpg")
    odd.pax_headers = {"size": "-5"}
    make_tar(photos / "x.tar", {"a.png": png(0), "odd": odd, "b.png": png(1)})
    assert run("x.tar", "-m", MODEL, "-o", "features").code == 1
    features = open_features(photos / "features")
    assert features.ids() == ["a.png", "b.png"]
    ((_, source, error),) = features.failures()
    assert (source, error) == ("x.tar:odd.jpg", "refused: a size of '-5' in its header")


def test_tars_that_are_cut_or_garbled_or_compressed(photos):
    whole = make_tar(photos / "x.tar", {f"{number}.png": png(number) for number in range(3)}).read_bytes()
    places = [item.offset for item in list_items(["x.tar"])]
    for data, words in (
        (whole[: places[1] + 700], "not a whole"),
        (whole[: places[2] - 100], "not a whole"),
        (whole[: places[1] - 512] + b"\x01" * 512 + whole[places[1] :], "not a whole, uncompressed tar .no header at"),
        (b"\x1f\x8b\x08" + whole, "not a whole, uncompressed tar"),
        (b"", "not a whole, uncompressed tar"),
    ):
        (photos / "y.tar").write_bytes(data)
        with pytest.raises(FeatureError, match=rf"y.tar: {words}"):
            list(list_items(["y.tar"]))
    with pytest.raises(FeatureError, match=r"z.tar: No such file"):
        list(list_items(["z.tar"]))


def test_a_tar_that_went_away_fails_its_rows(photos):
    make_tar(photos / "x.tar", {"a.png": png(0)})
    (item,) = list_items(["x.tar"])
    assert item.open().read() == png(0)
    (photos / "x.tar").unlink()
    with pytest.raises(OSError, match=r"^No such file"):
        item.open().read()


def test_what_tells_later_whether_an_image_has_changed(run, photos):
    tar = make_tar(photos / "x.tar", {"a.png": png(0), "bad.png": b"no"})
    (photos / "photos/9.png").unlink()
    run("photos/8.png", "x.tar", "photos/9.png", "-m", MODEL, "-o", "features")
    shard = shards.read_shard(photos / "features/part-00000.parquet", open_features(photos / "features").manifest)
    data = [(photos / "photos/8.png").read_bytes(), png(0), b"no"]
    assert list(shard.contents) == [*(hashlib.sha256(each).hexdigest() for each in data), None]
    file, whole = (path.stat() for path in (photos / "photos/8.png", tar))
    assert list(shard.stamps) == [
        f"{file.st_mtime_ns}:{file.st_size}",
        f"{whole.st_mtime_ns}:{whole.st_size}:512:{len(png(0))}",
        f"{whole.st_mtime_ns}:{whole.st_size}:{1024 + -(-len(png(0)) // 512) * 512}:2",
        None,
    ]


def test_a_folder_that_was_begun_without_records_goes_on_without_them(run, photos, monkeypatch):
    with monkeypatch.context() as patch:
        real = FeatureRequest.manifest
        patch.setattr(FeatureRequest, "manifest", lambda *a: dataclasses.replace(real(*a), recorded=False))
        stopped_after(patch, 1)
        assert run("photos", "-m", MODEL, "-o", "features", "--shard-size", 4).code == 1
    data = json.loads((photos / "features/features.json").read_text())
    del data["recorded"]
    (photos / "features/features.json").write_text(json.dumps(data))
    assert "going on: 4 images" in run("photos", "-m", MODEL, "-o", "features", "--shard-size", 4).err
    features = open_features(photos / "features")
    assert not features.manifest.recorded
    assert features.count == 10
    assert read_columns(photos / "features") == ["id", "source", "error", MODEL]
    run("photos", "-m", MODEL, "-o", "features", "--restart")
    assert read_columns(photos / "features") == ["id", "source", "error", "content", "stamp", MODEL]


def read_columns(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_schema(folder / "part-00000.parquet").names


# --- Stopped and started again ---


def stopped_after(monkeypatch, count: int) -> None:
    """The disk fills when `count` shards are written."""
    written = []

    def write(path, shard, manifest, write_shard=shards.write_shard):
        if len(written) == count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        write_shard(path, shard, manifest)

    monkeypatch.setattr(job, "write_shard", write)


def test_a_full_disk_stops_it_with_one_line_and_then_it_goes_on(run, photos):
    command = ("photos", "-m", MODEL, "--shard-size", 3, "-o")
    run(*command, "whole")
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 2)
        done = run(*command, "features")
    assert done.code == 1
    assert "part-00002.parquet: No space left on device; put that right and run the same again" in done.err
    assert len(done.err.splitlines()) == 2
    with pytest.raises(FeatureError, match="not complete"):
        open_features(photos / "features")
    (photos / "features/.part-00002.parquet.0123456789abcdef.tmp").touch()
    done = run(*command, "features")
    assert "going on: 6 images are done already" in done.err
    assert contents(photos / "features") == contents(photos / "whole")
    assert {path.name for path in (photos / "features").iterdir()} - contents(photos / "features").keys() <= {".lock"}


def interrupted_after(monkeypatch, count: int, *, by_size: bool = False) -> list[int]:
    """Ctrl-C when the models have run `count` times; how many images each run had, of those that came before.

    by_size: a batch of another size has other last bits in a real model; here they are no last ones.
    """
    run = Session.run
    seen = []

    def interrupt(self, feeds):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(len(feeds["image"]))
        return {name: values + by_size * len(feeds["image"]) for name, values in run(self, feeds).items()}

    monkeypatch.setattr(Session, "run", interrupt)
    return seen


@pytest.mark.parametrize("models", [1, 2])
def test_ctrl_c_keeps_every_row_and_the_result_is_the_same_to_the_byte(models, run, photos):
    """What is left must have its place in the batches as if all ran."""
    write_image(photos / "wide.png", fakes.photo(90, 300))
    chosen = random.Random(4).choices(("photos/8", "photos/9", "wide", "no"), (3, 3, 5, 1), k=50)
    (photos / "list.txt").write_text("".join(f"{name}.png\n" for name in chosen))
    names = [MODEL, other_model(photos / "other.onnx")][:models]
    command = ("photos", "list.txt", *(word for name in names for word in ("-m", name)), "--shard-size", 25, "-o")
    with pytest.MonkeyPatch.context() as patch:
        ran = interrupted_after(patch, -1, by_size=True)
        assert run(*command, "whole").code == 1
    total = len(ran) - models
    stopped = []
    for count in range(models, total + models, 2):
        with pytest.MonkeyPatch.context() as patch:
            interrupted_after(patch, count, by_size=True)
            done = run(*command, "features", "--restart")
        assert done.code == 130
        stopped.append(int(re.search(r"stopped: (\d+) of 60 images are kept; the same command goes on", done.err)[1]))
        with pytest.MonkeyPatch.context() as patch:
            again = interrupted_after(patch, -1, by_size=True)
            assert run(*command, "features").code == 1
        assert len(again) - models <= total - (count - models) + 4 * models
        assert contents(photos / "features") == contents(photos / "whole")
        assert {path.name for path in (photos / "features").iterdir()} - contents(photos / "whole").keys() <= {".lock"}
    assert stopped == sorted(stopped)
    assert stopped[-1] > 50


def kept_in_parts(photos: Path, run, *command) -> list[Path]:
    """A run that was killed: what it kept by time, every row in a file of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "KEEP_SECONDS", 0.0)
        interrupted_after(patch, 3)
        run(*command)
    return sorted(path for path in (photos / "features").iterdir() if PARTS.fullmatch(path.name))


def test_rows_are_kept_by_time_and_what_is_damaged_of_them_is_made_again(run, photos):
    command = ("photos", "-m", MODEL, "-o", "features")
    run(*command[:-1], "whole")
    parts = kept_in_parts(photos, run, *command)
    assert len(parts) > 3
    parts[2].write_bytes(b"damaged")
    assert "going on: 2 images" in run(*command).err
    assert contents(photos / "features") == contents(photos / "whole")
    assert not any(PARTS.fullmatch(path.name) for path in (photos / "features").iterdir())


def test_rows_that_are_kept_belong_to_their_job(run, photos):
    command = ("photos", "-m", MODEL, "-o", "features")
    parts = kept_in_parts(photos, run, *command)
    mine = photos / "features/.part-1.from-mine.parquet"
    mine.write_bytes(b"mine")
    fakes.make_retrieval(exported_path(MODEL), seed=8)
    assert "file" in run(*command).err
    assert all(path.exists() for path in parts)
    (photos / "features/features.json").unlink()
    done = run(*command)
    assert (done.code, "going on" in done.err) == (0, False)
    assert not any(path.exists() for path in parts)
    assert mine.read_bytes() == b"mine"
    expected(open_features(photos / "features"), MODEL, exported_path(MODEL))
    kept_in_parts(photos, run, *command, "--restart", "--dtype", "float16")
    done = run(*command, "--restart")
    assert (done.code, "going on" in done.err) == (0, False)


def test_a_line_of_progress_every_half_minute_without_a_terminal(run, photos, monkeypatch):
    monkeypatch.setattr("landmark_onnx.cli.progress.REMINDER", 0.0)
    assert re.search(r"^landmark-onnx: 10 of 10", run("photos", "-m", MODEL, "-o", "features").err, re.M)
    assert "of 10" not in run("photos", "-m", MODEL, "-o", "again", "-q").err


def test_damaged_shards_are_noticed_and_rebuilt(run, photos):
    command = ("photos", "-m", MODEL, "--shard-size", 3, "-o", "features")
    run(*command)
    whole = contents(photos / "features")
    data = whole["part-00001.parquet"]
    (photos / "features/part-00001.parquet").write_bytes(data[:1000] + bytes(200) + data[1200:])
    (photos / "features/part-00002.parquet").unlink()
    (photos / "features/part-00003.parquet").write_bytes(whole["part-00000.parquet"])
    done = run(*command)
    assert done.code == 0
    assert "part-00001.parquet: damaged" in done.err
    assert "part-00003.parquet: of other images: rebuilt" in done.err
    assert "going on: 3 images" in done.err
    assert contents(photos / "features") == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--dtype", "float16"], "--dtype float32; now float16"),
        (["--shard-size", "4"], "--shard-size 3; now 4"),
        (["--ids", "stem"], "other images or ids: 10; now 10"),
        (["list.txt"], "other images or ids: 10; now 11"),
        (["-m", "other.onnx"], f"models: {MODEL}; now {MODEL}, other"),
    ],
)
def test_another_job_is_refused_until_restart(change, words, run, photos):
    other_model(photos / "other.onnx")
    (photos / "list.txt").write_text("photos/8.png\n")
    command = ["photos", "-m", MODEL, "--shard-size", "3", "-o", "features"]
    run(*command)
    whole = contents(photos / "features")
    done = run(*command, *change)
    assert done.code == 1
    assert words in done.err
    assert "--restart" in done.err
    assert contents(photos / "features") == whole
    assert run(*command, *change, "--restart").code == 0
    run(*command, *change[:-1], change[-1], "-o", "fresh")
    assert contents(photos / "features") == contents(photos / "fresh")


@pytest.mark.parametrize(
    ("remake", "words"),
    [
        (lambda path: fakes.make_retrieval(path, seed=1), rf"{MODEL}: file [0-9a-f]{{12}}; now"),
        (
            lambda path: fakes.make_retrieval(path, model_card=fakes.small_card(MODEL, size=96)),
            rf"{MODEL}: another preprocessing",
        ),
    ],
)
def test_a_changed_model_is_refused(remake, words, run, photos):
    command = ("photos", "-m", MODEL, "-o", "features")
    run(*command)
    remake(exported_path(MODEL))
    done = run(*command)
    assert done.code == 1
    assert re.search(words, done.err)


def test_a_folder_of_something_else_is_left_alone(run, photos):
    (photos / "mine").mkdir()
    (photos / "mine/part-00000.parquet").write_bytes(b"mine")
    for options in ((), ("--restart",)):
        done = run("photos", "-m", MODEL, "-o", "mine", *options)
        assert "has part-00000.parquet but no features.json" in done.err
    assert contents(photos / "mine") == {"part-00000.parquet": b"mine"}


@pytest.mark.parametrize("options", [(), ("--restart",), ("--restart", "--dtype", "float16")])
def test_files_that_only_look_like_ours_are_kept(options, run, photos):
    command = ("photos", "-m", MODEL, "-o", "features", "--shard-size", 3)
    run(*command)
    mine = ("part-of-my-work.parquet", "part-00099.parquet", ".part-7.parquet.draft.tmp", ".features.json.old.tmp")
    for name in mine:
        (photos / "features" / name).write_bytes(b"mine")
    assert run(*command, *options).code == 0
    assert all((photos / "features" / name).read_bytes() == b"mine" for name in mine)


def test_a_restart_replaces_no_file_of_others(run, photos):
    run("photos", "-m", MODEL, "-o", "features")
    (photos / "features/part-00002.parquet").write_bytes(b"mine")
    before = contents(photos / "features")
    done = run("photos", "-m", MODEL, "-o", "features", "--restart", "--shard-size", 3)
    assert (done.code, len(done.err.splitlines())) == (1, 2)
    assert "part-00002.parquet: is no shard of these features" in done.err
    assert contents(photos / "features") == before


def test_a_restart_replaces_no_manifest_of_others(run, photos):
    (photos / "features").mkdir()
    (photos / "features/features.json").write_text('{"wheels": 4}')
    for options in ((), ("--restart",)):
        assert run("photos", "-m", MODEL, "-o", "features", *options).code == 1
    assert contents(photos / "features") == {"features.json": b'{"wheels": 4}'}


def test_a_restart_after_a_lost_manifest_leaves_no_old_shard(run, photos):
    run("photos", "-m", MODEL, "-o", "features", "--shard-size", 3)
    (photos / "features/features.json").write_text("{")
    assert run("photos", "-m", MODEL, "-o", "features", "--restart").code == 0
    assert sorted(contents(photos / "features")) == ["features.json", "part-00000.parquet"]


def test_a_damaged_manifest_needs_a_restart(run, photos):
    run("photos", "-m", MODEL, "-o", "features")
    whole = contents(photos / "features")
    (photos / "features/features.json").write_text("{")
    assert "embed again with --restart" in run("photos", "-m", MODEL, "-o", "features").err
    assert run("photos", "-m", MODEL, "-o", "features", "--restart").code == 0
    assert contents(photos / "features") == whole


def test_two_at_once_in_a_folder(run, photos):
    import filelock

    (photos / "features").mkdir()
    with filelock.FileLock(photos / "features/.lock"):
        assert "another landmark-onnx embed is at work there" in run("photos", "-m", MODEL, "-o", "features").err


# --- Models that do not fit ---


def test_models_of_one_name_and_of_another_task(run, photos):
    twin = fakes.make_retrieval(photos / "twin.onnx", seed=3)
    assert "two models are called" in run("photos", "-m", MODEL, "-m", twin, "-o", "f").err
    detector = fakes.make_det(photos / "det.onnx")
    assert "its task is det, wanted retrieval" in run("photos", "-m", detector, "-o", "f").err
    done = run("photos", "-m", MODEL, "-m", twin, "-o", "f", "--card", twin)
    assert done.code == 2


def test_an_engine_that_fails_on_everything_stops_the_job(photos, monkeypatch):
    def fail(*_):
        raise SessionError("out of memory")

    for number in range(20):
        write_image(photos / f"photos/more{number}.png", fakes.photo(64, 64, seed=number))
    monkeypatch.setattr("landmark_onnx.runtime.session.Session.run", fail)
    retriever = Retriever(exported_path(MODEL), threads=1)
    items = list(list_items(["photos"]))
    manifest = FeatureManifest(
        models=(ModelIdentity(MODEL, "", 512, "", "fp32"),), dtype="float32", shard_size=30, inputs="", rows=30
    )
    extractor = extract.Extractor(manifest=manifest, models={MODEL: retriever})
    monkeypatch.setattr(extract, "KEEP_SECONDS", 0.0)
    kept = []
    with pytest.raises(FeatureError, match="every image of a shard failed: out of memory"):
        extractor(items, keep=lambda row, part: kept.append(part))
    assert not kept
    assert set(extractor(items[:15]).errors) == {"out of memory"}


def test_the_identity_of_a_model(photos):
    from landmark_onnx.modelfile.metadata import read_seal

    path = exported_path(MODEL)
    identity = identify(Retriever(path, threads=1))
    assert (identity.name, identity.dim, identity.sha256) == (MODEL, 512, read_seal(path).sha256)
    assert identity == identify(Retriever(path, threads=1))


def test_the_precision_belongs_to_the_identity(photos, monkeypatch, run):
    assert run("photos", "-m", MODEL, "-o", "features").code == 0
    retriever = Retriever(exported_path(MODEL), threads=1)
    assert identify(retriever).precision == "fp32"
    # What runs bf16 is not in every installation: here the session is told what it would have been asked.
    monkeypatch.setattr(Retriever, "precision", "bf16")
    assert dataclasses.replace(identify(retriever), precision="fp32") != identify(retriever)
    done = run("photos", "-m", MODEL, "-o", "features")
    assert done.code == 1
    assert f"{MODEL}: --precision fp32; now bf16" in done.err
    assert "--restart" in done.err
    with pytest.raises(SearchError, match="features has precision fp32, the query has bf16"):
        choose(open_features(Path("features"))).check([identify(retriever)], "features", "the query")


def test_the_same_images_give_the_same_bits_whatever_the_time_they_take(photos, monkeypatch):
    """A batch of one may differ from a larger one in the last bit: which images share one must not depend on time."""
    retriever = Retriever(exported_path(MODEL), threads=1)
    sources = [item.path for item in list_items(["photos"])] * 4
    batches, seen = [], []
    run, read = retriever.session.run, pipeline.read_image
    chance = random.Random(0)

    def slow(*arguments, **options):
        time.sleep(chance.choice((0, 0, 0.03)))
        return read(*arguments, **options)

    def lazy():
        for source in sources:
            time.sleep(chance.choice((0, 0, 0, 0.05)))
            yield source

    def noted(feeds):
        seen.append(feeds["image"].shape)
        return run(feeds)

    monkeypatch.setattr(pipeline, "read_image", slow)
    monkeypatch.setattr(retriever.session, "run", noted)
    for given in (sources, lazy(), lazy()):
        answers = list(retriever.stream(given, steady=True))
        assert [answer.image for answer in answers] == sources
        batches.append((list(seen), np.stack([answer.vector for answer in answers]).tobytes()))
        seen.clear()
    assert batches[0] == batches[1] == batches[2]


# --- Parts ---


def test_a_fan_gives_every_reader_everything():
    first, second, third = Fan(iter(range(5)), 3).readers()
    assert [next(first), next(first)] == [0, 1]
    assert list(second) == [0, 1, 2, 3, 4]
    assert list(first) == [2, 3, 4]
    assert list(third) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("seconds", "want"), [(0, "0 s"), (41.9, "41 s"), (125, "2 min 5 s"), (3600, "1 h 0 min"), (1e6, "11 d 13 h")]
)
def test_durations(seconds, want):
    assert duration(seconds) == want


def test_the_pace_is_that_of_the_last_minute():
    now = [0.0]
    pace = Pace(100, clock=lambda: now[0])
    assert pace.words(100, 1000) == "100 of 1,000"
    for now[0] in (*range(1, 100), 100):
        words = pace.words(100 + int(min(now[0], 40)) * 10, 1000)
    assert words == "500 of 1,000"
    now[0] = 110.0
    assert pace.words(1000, 4000) == "1,000 of 4,000, 8.3/s, 6 min 0 s left"


def test_models_of_two_orders_of_colours_share_one_pass(photos):
    """Images that are decoded once for all are BGR, whatever a model takes arrays in."""
    wanted = Retriever(exported_path(MODEL), threads=1)
    other = Retriever(other_model(photos / "other.onnx"), threads=1, colour="rgb")
    request = FeatureRequest(models=[identify(wanted), identify(other)])
    features = job.embed(list_items(["photos"]), request, Path("features"), job.here([wanted, other]))
    expected(features, MODEL, exported_path(MODEL))
    expected(features, "other", photos / "other.onnx")
