"""Releases in every form they come in, and tars that mean harm: nothing is extracted, nothing is believed."""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.errors import ExportError
from pir_programs import SHAPES
from pir_programs import program as pir_program
from streams_of import stream

sources = pytest.importorskip("landmark_onnx_export.releases.source")
archives = pytest.importorskip("landmark_onnx_export.releases.tar")

WEIGHTS = {"fc_0.w_0": np.arange(6, dtype="<f4").reshape(2, 3), "fc_0.b_0": np.ones(3, "<f4")}
LABELS = "café\t1\nbridge\t2\n"


TRAIN = {f"model_a/{name}": stream(array) for name, array in WEIGHTS.items()} | {"model_a/labels.txt": LABELS.encode()}


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(members, form=tarfile.USTAR_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def plain_tar(files):
    return tar_bytes(member(name, data) for name, data in files.items())


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def check_weights(source):
    assert set(source.variables) == set(WEIGHTS)
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(source.variables[name].read(), array)


@pytest.fixture
def saved(tmp_path):
    def save(data, name="model_a.tar"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder of temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refused(path, words, **options):
    with pytest.raises(ExportError, match=words) as caught, sources.open_source(path, **options):
        pass
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"])
def test_a_tar_is_known_by_its_bytes(pack, saved, scratch):
    data = pack(plain_tar(TRAIN))
    path = saved(data, "download.bin")
    with sources.open_source(path) as source:
        assert (source.kind, source.name, source.program) == ("train", "model_a", None)
        assert source.extras == ("model_a/labels.txt",)
        assert source.sha256 == hashlib.sha256(data).hexdigest()
        check_weights(source)
        assert source.read_text("labels.txt") == LABELS
        in_place = all(variable.path == path for variable in source.variables.values())
        assert in_place == (pack is bytes)
    assert not list(scratch.iterdir())


def test_a_long_or_concatenated_xz_is_read_whole(saved, monkeypatch):
    monkeypatch.setattr(archives, "_CHUNK_BYTES", 100)
    data = plain_tar(TRAIN)
    packed = lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:]) + bytes(4)
    with sources.open_source(saved(packed)) as source:
        check_weights(source)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(form, saved):
    folder = "é" * 150
    data = tar_bytes((member(f"{folder}/{name}", data) for name, data in TRAIN.items()), form)
    with sources.open_source(saved(data)) as source:
        assert source.extras == (f"{folder}/model_a/labels.txt",)
        check_weights(source)


def test_a_folder_of_variables(tmp_path):
    folder = write_folder(tmp_path, TRAIN) / "model_a"
    with sources.open_source(folder) as source:
        assert (source.kind, source.name, source.extras) == ("train", "model_a", ("labels.txt",))
        check_weights(source)
        assert source.read_text("labels.txt") == LABELS
        assert source.read_text("nothing.txt") is None
        first = source.sha256
    lines = [f"{hashlib.sha256(stream(WEIGHTS[name])).hexdigest()}  {name}\n" for name in sorted(WEIGHTS)]
    assert first == hashlib.sha256("".join(lines).encode()).hexdigest()
    (folder / "labels.txt").write_text("")
    (folder / "fc_0.b_0").write_bytes(stream(np.zeros(3, "<f4")))
    with sources.open_source(tmp_path) as source:
        assert source.sha256 != first


def test_litter_is_ignored(tmp_path, saved):
    litter = {"._fc_0.b_0": b"", ".DS_Store": b"\0\0\0\1", "PaxHeaders.7/fc_0.b_0": b"\n", "__MACOSX/fc_0.b_0": b""}
    files = TRAIN | {f"model_a/{name}": data for name, data in litter.items()}
    for path in (write_folder(tmp_path / "unpacked", files), saved(plain_tar(files))):
        with sources.open_source(path) as source:
            assert [name.rpartition("/")[2] for name in source.extras] == ["labels.txt"]
            check_weights(source)


def test_text_is_bounded_and_never_fails_to_decode(saved, monkeypatch):
    path = saved(plain_tar(TRAIN | {"model_a/labels.txt": b"caf\xe9"}))
    with sources.open_source(path) as source:
        assert source.read_text("model_a/labels.txt") == "caf\ufffd"
        monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 3)
        with pytest.raises(ExportError, match=r"labels\.txt: wanted at most 3 bytes, got 4"):
            source.read_text("labels.txt")


@pytest.fixture(scope="module")
def program():
    pytest.importorskip("paddle")
    from landmark_onnx_export.paddle.builder import ProgramBuilder

    builder = ProgramBuilder()
    builder.feed("image", [-1, 2])
    for name, array in WEIGHTS.items():
        builder.variable(name, array.shape, persistable=True)
    builder.fetch(builder.op("mul", {"X": "image", "Y": "fc_0.w_0"}, {"Out": [-1, 3]}))
    return builder.serialize()


PARAMS = b"".join(stream(WEIGHTS[name]) for name in sorted(WEIGHTS))
SEPARATE = {name: stream(array) for name, array in WEIGHTS.items()}


@pytest.mark.paddle
@pytest.mark.parametrize(
    ("model", "beside"),
    [
        ("model", {"params": PARAMS}),
        ("__model__", {"__params__": PARAMS}),
        ("any.pdmodel", {"any.pdiparams": PARAMS, "other.pdiparams": stream(np.ones(1, "<f4"))}),
        ("graph", {"weights": PARAMS}),
        ("__model__", SEPARATE),
        ("deep/infer_model/model", {"deep/infer_model/params": PARAMS}),
    ],
)
def test_binary_models(model, beside, program, tmp_path, saved):
    files = {f"model_b/{name}": data for name, data in {model: program, "notes.txt": b"\nhello", **beside}.items()}
    folder = write_folder(tmp_path, files)
    for path in (folder / "model_b", folder / "model_b" / model, saved(plain_tar(files))):
        with sources.open_source(path) as source:
            assert (source.kind, source.program) == ("binary", program)
            assert source.name == ("deep" if path.name in ("model", "infer_model") and "deep" in model else "model_b")
            assert any(name.endswith("notes.txt") for name in source.extras) or "deep" in model
            check_weights(source)


@pytest.mark.paddle
def test_a_binary_folder_has_one_digest_wherever_it_is_opened(program, tmp_path):
    folder = write_folder(tmp_path, {"b/infer_model/model": program, "b/infer_model/params": PARAMS})
    digests = set()
    for path in (folder / "b", folder / "b/infer_model", folder / "b/infer_model/model"):
        with sources.open_source(path) as source:
            digests.add((source.name, source.sha256))
    assert len(digests) == 1
    assert digests.pop()[0] == "b"


@pytest.mark.paddle
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"params": None}, "wanted the parameters of model beside it, got nothing else"),
        ({"params": None, "x": PARAMS, "y": PARAMS}, "wanted the parameters of model beside it, got x, y"),
        ({"params": None, "fc_0.b_0": SEPARATE["fc_0.b_0"]}, r"has 2 variables, 1 found: no fc_0\.w_0"),
        ({"params": PARAMS[:-1]}, r"variable fc_0\.w_0: wanted 24 bytes"),
        ({"params": PARAMS + b"\0"}, "wanted 86 bytes for the program's 2 variables, got 87"),
        ({"params": PARAMS[36:] + PARAMS[:36]}, r"variable fc_0\.b_0: model declares \[3\], got \[2, 3\]"),
        ({"params": b"\1" + PARAMS}, r"variable fc_0\.b_0: wanted version 0"),
        ({"again.pdmodel": None}, "wanted one program, got 2: again.pdmodel, model"),
    ],
)
def test_broken_binary_models(files, words, program, tmp_path):
    whole = {"model": program, "params": PARAMS} | {name: data or program for name, data in files.items()}
    missing = [name for name, data in files.items() if data is None and name == "params"]
    folder = write_folder(tmp_path / "b", {name: data for name, data in whole.items() if name not in missing})
    with pytest.raises(ExportError, match=words), sources.open_source(folder):
        pass


@pytest.mark.paddle
def test_a_damaged_program_is_named(program, tmp_path):
    folder = write_folder(tmp_path / "b", {"model": program[:-3], "params": PARAMS})
    for path in (folder, folder / "model"):
        with pytest.raises(ExportError, match="model: not a Paddle program"), sources.open_source(path):
            pass


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("/etc/x", b"x"), "'/etc/x' lies outside"),
        (member("model_a/../../x", b"x"), "lies outside"),
        (member("..\\x", b"x"), "lies outside"),
        (member("C:x", b"x"), "lies outside"),
        (member("a/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'a/link' is a symbolic link"),
        (member("a/link", type=tarfile.LNKTYPE, linkname="model_a/labels.txt"), "is a hard link"),
        (member("a/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "is a character device"),
        (member("a/disk", type=tarfile.BLKTYPE), "is a block device"),
        (member("a/pipe", type=tarfile.FIFOTYPE), "is a pipe"),
        (member("a/odd", type=b"Z"), "is of the unknown kind b'Z'"),
        (member("a/holes", type=tarfile.GNUTYPE_SPARSE), "is a sparse file"),
        (member("./model_a/fc_0.b_0", b"x"), "'model_a/fc_0.b_0' is there twice"),
    ],
)
def test_what_could_escape_or_mislead_is_refused(info, words, saved, tmp_path):
    members = [*(member(name, data) for name, data in TRAIN.items()), info]
    path = saved(tar_bytes(members, tarfile.GNU_FORMAT))
    refused(path, words)
    assert list(tmp_path.iterdir()) == [path]


def test_too_many_members_are_refused(saved, monkeypatch):
    path = saved(plain_tar(TRAIN))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with sources.open_source(path):
        pass
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    refused(path, "is one of more than 2")


def claims(size):
    """A tar whose second member claims another size than it has."""
    data = bytearray(plain_tar(TRAIN))
    info = tarfile.TarInfo.frombuf(bytes(data[1024:1536]), "utf-8", "strict")
    info.size = size
    data[1024:1536] = info.tobuf(tarfile.GNU_FORMAT)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (claims(1 << 40), rf"'model_a/fc_0\.b_0': wanted {1 << 40} bytes, got"),
        (claims(-512), "damaged tar|wanted -512 bytes"),
        (plain_tar(TRAIN)[:1100], "wanted 36 bytes, got|damaged tar"),
        (plain_tar(TRAIN)[:1024], "damaged tar: cut off at byte 1024 of 1024"),
        (plain_tar(TRAIN)[:1024] + b"x" * 512, "damaged tar: damaged header at byte 1024 of 1536"),
    ],
)
def test_damaged_tars_are_refused(data, words, saved):
    refused(saved(data), words)


def test_a_long_extended_header_is_not_read(saved):
    data = bytearray(tar_bytes([member("n" * 300, b"")], tarfile.GNU_FORMAT))
    info = tarfile.TarInfo.frombuf(bytes(data[:512]), "utf-8", "strict")
    info.size = 1 << 40
    data[:512] = info.tobuf(tarfile.GNU_FORMAT)
    refused(saved(bytes(data)), "damaged tar: an extended header of")


def test_a_bomb_is_stopped_early(saved, scratch, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        refused(saved(pack(plain_tar(TRAIN | {"zeros": bytes(8 << 20)}))), "a decompression bomb")
    assert not list(scratch.iterdir())


def test_the_space_for_decompression_is_limited(saved, scratch):
    path = saved(gzip.compress(plain_tar(TRAIN)))
    refused(path, "decompresses to more than 1000 bytes", max_bytes=1000)
    assert not list(scratch.iterdir())


def test_an_xz_that_asks_for_much_memory_is_refused(saved, monkeypatch):
    monkeypatch.setattr(archives, "_XZ_MEMORY", 1 << 20)
    refused(saved(lzma.compress(plain_tar(TRAIN))), "cannot decompress xz")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_compression_is_refused(pack, saved, scratch):
    data = pack(plain_tar(TRAIN))
    refused(saved(data[: len(data) // 2]), "cannot decompress")
    refused(saved(pack(b"hello")), "there is no tar inside")
    assert not list(scratch.iterdir())


PIR_WEIGHTS = {name: np.ones(shape, "<f4") for name, shape in SHAPES.items()}
PIR_PARAMS = b"".join(stream(PIR_WEIGHTS[name]) for name in sorted(PIR_WEIGHTS))


@pytest.mark.parametrize("names", [("inference.json", "inference.pdiparams"), ("x", "y")])
def test_a_program_of_paddle_3_is_told_by_its_content(names, tmp_path, saved):
    files = dict(zip((f"net/{name}" for name in names), (pir_program(), PIR_PARAMS), strict=True))
    files |= {"net/inference.yml": b"Global: {}", "net/other.json": b"{}"}
    folder = write_folder(tmp_path, files) / "net"
    for path in (folder, folder / names[0], saved(gzip.compress(plain_tar(files)), "download")):
        with sources.open_source(path) as source:
            assert (source.kind, source.program, set(source.variables)) == ("pir", pir_program(), set(SHAPES))
            assert {name.rpartition("/")[2] for name in source.extras} == {"inference.yml", "other.json"}
            for name, values in PIR_WEIGHTS.items():
                np.testing.assert_array_equal(source.variables[name].read(), values)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "got no file"),
        ({"a.jpg": b"\xff\xd8", "b.txt": b"b"}, r"wanted Paddle variable files, or a program .*; got 2 other files: a"),
        ({"x/w": stream(np.ones(1, "<f4")), "y/w": stream(np.ones(1, "<f4"))}, "got 2 folders: x, y"),
        ({"w": stream(np.ones(1, "<f4"))[:-1]}, "variable w: wanted 4 bytes"),
        ({"w": b""}, "variable w: wanted a header of 20 bytes at byte .*, got 0"),
        (
            {"inference.json": b'{"base_code":{"magic":"pir"}}', "inference.pdiparams": stream(np.ones(1, "<f4"))},
            r"inference\.json: not a program of Paddle 3 \(PIR\): its ops cannot be read",
        ),
    ],
)
def test_what_is_no_release_is_refused(files, words, tmp_path, saved):
    folder = write_folder(tmp_path / "empty", files)
    folder.mkdir(exist_ok=True)
    refused(folder, words)
    if files:
        refused(saved(plain_tar(files)), words)


def test_other_files_and_nothing_at_all_are_refused(saved, tmp_path):
    refused(saved(b"hello", "notes"), "got 1 other files: notes")
    refused(saved(stream(np.ones(1, "<f4")), "params"), "got 1 other files: params")
    refused(saved(b"", "empty"), "got 1 other files: empty")
    refused(tmp_path / "nowhere", "there is no such file or folder")


def test_a_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_MEMBERS", 2)
    folder = write_folder(tmp_path, TRAIN) / "model_a"
    refused(folder, "wanted at most 2 files")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 4607), st.integers(0, 255)), max_size=3), st.integers(0, 1 << 14))
def test_a_changed_tar_is_an_error_or_a_release(tmp_path_factory, changes, length):
    data = bytearray(plain_tar(TRAIN))
    for position, byte in changes:
        data[position] = byte
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(data[:length])
    try:
        with sources.open_source(path) as source:
            read = [variable.read() for variable in source.variables.values()]
            assert sum(array.nbytes for array in read) <= len(data)
    except ExportError:
        pass
    shutil.rmtree(path.parent)
