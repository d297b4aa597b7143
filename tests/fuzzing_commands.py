"""Use mutated files of one kind by the command line: `python fuzzing_commands.py KIND COUNT FOLDER`.

Run by test_fuzz.py, in a process of its own. A timer kills it after ten seconds of the processor on one file; what
crashed it is `current` in the folder. A command may answer, or say in one line what is wrong; with a list or a tar it
may also list the rows that failed.
"""

import contextlib
import io
import itertools
import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

import fakes
import indexed
from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.cli import main
from landmark_onnx.cli.root import TOO_MUCH
from landmark_onnx.errors import LandmarkError
from landmark_onnx.hub.addresses import OFFLINE_VARIABLE
from landmark_onnx.modelfile import metadata as seals
from landmark_onnx.modelfile.metadata import PREFIX, read_metadata, read_seal
from landmark_onnx.modelfile.protobuf import field
from landmark_onnx.store.catalogue import HOME_VARIABLE, exported_path
from mutants import edited_bytes, edited_json, edited_tar, edited_toml, edited_words, either, random, recoded, run

IDS = [f"{number:016x}" for number in range(8)]
BUILD = ("index", "build", "f", "-o", "i", "--replace", "-q")
DOCUMENT = either(edited_json, edited_json, edited_bytes, recoded)
LARGEST = 2048
"""Pixels of a side: what a card may ask for is more, and takes its time."""


class Refused(LandmarkError):  # noqa: N818
    """A command that ended with one line."""


def ask(*arguments: object, rows: bool = False) -> str:
    """What a command answers. Raises: Refused with its one line, AssertionError if it ended in another way.

    rows: it may say one line for each row that failed.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", newline="") for _ in range(2))
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code or 0
    answered, said = (_text(stream) for stream in (out, err))
    assert code in (0, 1), (code, said[-2000:])
    assert "Traceback" not in said, said[-2000:]
    assert "fault of landmark-onnx" not in said, said[-5000:]
    errors = [line for line in said.splitlines() if line.startswith("landmark-onnx: error: ")]
    assert not any(line[22:].startswith(reason) for line in errors for reason in TOO_MUCH.values()), errors
    assert all(line.isprintable() for line in said.splitlines()), said[-5000:]
    assert bool(errors) == bool(code), said[-5000:]
    assert rows or len(errors) <= 1, errors
    if code:
        raise Refused(errors[-1])
    return answered


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8", "surrogateescape")


def workspace(folder: Path) -> None:
    """Tiny models in a store, photos, features and an index, in the working folder."""
    os.chdir(folder)
    os.environ |= {HOME_VARIABLE: str(folder / "store"), CARDS_VARIABLE: str(folder / "cards"), OFFLINE_VARIABLE: "1"}
    Path("cards").mkdir(exist_ok=True)
    for name in IDS:
        cv2.imwrite(f"{name}.png", fakes.photo(40, 48, seed=int(name, 16)))


def cards(count: int, folder: Path) -> None:
    """A card in the user's folder, which every command reads."""
    entries = [each for each in resources.files("landmark_onnx_models").iterdir() if each.name.endswith(".toml")]
    path = Path("cards/mine.toml")
    clock = itertools.count(1)

    def use(data: bytes) -> None:
        path.write_bytes(data)
        os.utime(path, ns=(next(clock),) * 2)  # as another editor would leave it: the cards are read again
        done = ask("models", "list", "--json")
        assert "mine" in [row["model"] for row in json.loads(done)]

    seeds = [each.read_bytes().replace(each.name[:-5].encode(), b"mine") for each in entries]
    edit = either(edited_toml, edited_toml, edited_bytes, recoded)
    run("cards", seeds, use, count, folder, edit)


def metadata(count: int, folder: Path) -> None:
    """What a sealed model says of itself: card, labels, probe; the seal is that of the mutant."""
    names = {index: f"class {index}" for index in range(7)}
    made = {
        "retrieval": fakes.make_retrieval(folder / "r.onnx"),
        "cls": fakes.make_cls(folder / "c.onnx", labels=names),
        "det": fakes.make_det(folder / "d.onnx", labels=names),
    }
    bodies = {}
    for task, model in made.items():
        seal = read_seal(model)
        assert seal is not None
        bodies[task] = model.read_bytes()[: seal.offset]
    seeds = [json.dumps([task, read_metadata(model)]).encode() for task, model in made.items()]
    path = folder / "m.onnx"

    def edit(data: bytes) -> bytes:
        task, said = json.loads(data)
        key = random.choice(list(said))
        text = either(edited_json, edited_json, edited_bytes)(json.dumps(said.pop(key)).encode())
        return json.dumps([task, said, key, text.decode("latin1")]).encode()

    def use(data: bytes) -> None:
        task, said, *edited = json.loads(data)
        texts = {key: json.dumps(value).encode() for key, value in said.items()}
        texts |= {edited[0]: edited[1].encode("latin1")} if edited else {}
        _write_sealed(path, bodies[task], texts)
        if not _affordable(path):
            raise Refused("asks for too much")
        commands: list[Sequence[object]] = [("verify", path), ("models", "add", path)]
        photos = [f"{name}.png" for name in IDS[: 2 if task == "retrieval" else 1]]
        commands += [(task, "-m", path, *photos, "--format", "json")] * 2
        ask(*random.choice(commands))

    run("metadata", seeds, use, count, folder, edit)


def _write_sealed(path: Path, body: bytes, texts: dict[str, bytes]) -> None:
    """As `append_metadata`, of texts that need not be JSON."""
    entries = [field(14, field(1, f"{PREFIX}{key}".encode()) + field(2, text)) for key, text in texts.items()]
    with path.open("w+b") as file:
        file.write(body + b"".join(entries) + seals._seal_head(len(body)))
        file.write(seals._hash(file, file.tell()).encode())


def _affordable(path: Path) -> bool:
    try:
        found = ModelCard.from_dict((read_metadata(path) or {}).get("card"), "card").preprocess
    except LandmarkError:
        return True
    return max(found.size, found.width, found.max_side, found.multiple, found.min_side) <= LARGEST


def features(count: int, folder: Path) -> None:
    """The manifest of a folder of features."""
    indexed.folder(folder / "f", IDS, names=("a", "b"))
    path = folder / "f/features.json"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        ask(*BUILD)
        assert json.loads(ask("index", "info", "i", "--format", "json"))[0]["rows"] == len(IDS)

    run("features.json", [path.read_bytes()], use, count, folder, DOCUMENT)


def index(count: int, folder: Path) -> None:
    """The manifest of an index."""
    indexed.folder(folder / "f", IDS)
    seeds = []
    for number, more in enumerate(([], ["--pca", "4"], ["--approximate"])):
        ask("index", "build", "f", "-o", f"i{number}", "-q", *more)
        seeds.append(Path(f"i{number}/index.json").read_bytes())

    def use(data: bytes) -> None:
        number = 1 if b"whitening-" in data else 2 if b"graph-" in data else 0
        place = Path(f"i{number}")
        (place / "index.json").write_bytes(data)
        ask("index", "info", place, "--format", "json")
        done = ask("search", "--features", "f", "-i", place, "--top", "1", "--format", "ndjson", "-q")
        rows = [json.loads(line) for line in done.splitlines()]
        assert [row["neighbours"][0]["id"] for row in rows] == IDS

    run("index.json", seeds, use, count, folder, DOCUMENT)


def contents(count: int, folder: Path) -> None:
    """The other files of features and of an index: what is in them may differ, but nothing ends in another way."""
    indexed.folder(folder / "f", IDS)
    ask("index", "build", "f", "-o", "i0", "-q", "--pca", "4", "--approximate")
    files = {path: path.read_bytes() for place in ("f", "i0") for path in sorted(Path(place).iterdir())}
    files = {path: data for path, data in files.items() if data and path.suffix != ".json" and path.name[0] != "."}
    seeds = [f"{path}:".encode() + data for path, data in files.items()]

    def edit(seed: bytes) -> bytes:
        name, _, data = seed.partition(b":")
        return name + b":" + edited_bytes(data)

    def use(data: bytes) -> None:
        name, _, data = data.partition(b":")
        path = Path(name.decode())
        path.write_bytes(data)
        try:
            if path.parent.name == "f":
                ask(*BUILD)
            ask("search", "--features", "f", "-i", "i0", "--top", "3", "--format", "json", "-q")
            ask("search", "--features", "f", "-i", "i0", "--top", "3", "--format", "json", "-q", "--approximate")
            ask("index", "info", "i0", "--verify")
        finally:
            path.write_bytes(files[path])

    run("contents", seeds, use, count, folder, edit)


def tars(count: int, folder: Path) -> None:
    """Tars of images to embed."""
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open("seed.tar", "w", format=form) as tar:
            for name in IDS[:3]:
                tar.add(f"{name}.png", "é" * 60 * (form != tarfile.USTAR_FORMAT) + f"{name}.png")
        seeds.append(Path("seed.tar").read_bytes())

    def use(data: bytes) -> None:
        Path("x.tar").write_bytes(data)
        ask("embed", "x.tar", "-m", fakes.RETRIEVAL, "-o", "f", "--restart", "-q", rows=True)

    run("tars", seeds, use, count, folder, either(edited_tar, edited_tar, edited_bytes))


def lists(count: int, folder: Path) -> None:
    """Lists of images to embed."""
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))

    def use(data: bytes) -> None:
        Path("x.txt").write_bytes(data)
        ask("embed", "x.txt", "-m", fakes.RETRIEVAL, "-o", "f", "--restart", "-q", rows=True)

    seeds = [
        "".join(f"{name}.png\n" for name in IDS[:3]).encode(),
        "\0".join(f"{name}.png" for name in IDS[:3]).encode(),
    ]
    run("lists", seeds, use, count, folder, either(edited_words, edited_bytes, recoded))


def tables(count: int, folder: Path) -> None:
    """CSV files of the challenges, and answers to make a submission of."""
    solution = b"id,images,Usage\nq1,a b,Public\nq2,c,Private\nq3,None,Ignored\n"
    landmarks = b"id,landmarks,Usage\nq1,1 2,Public\nq2,3,Private\nq3,,Public\n"
    kinds: dict[str, tuple[bytes, Callable[[Path], Sequence[object]]]] = {
        "submission": (b"id,images\nq1,b a c\nq2,c\n", lambda path: ("retrieval", path, "solution.csv")),
        "solution": (solution, lambda path: ("retrieval", "submission.csv", path)),
        "guesses": (b"id,landmarks\nq1,1 0.5\nq2,\n", lambda path: ("recognition", path, "landmarks.csv")),
        "landmarks": (landmarks, lambda path: ("recognition", "guesses.csv", path)),
        "ranking": (b"id,images\nq0,i0 i1\nq1,i3\n", lambda path: ("revisited", path, "gnd.pkl")),
    }
    for name, (data, _) in kinds.items():
        Path(f"{name}.csv").write_bytes(data)
    Path("gnd.pkl").write_bytes(_ground_truth(2))
    answers = (
        b'{"image": "a.png", "neighbours": [{"rank": 1, "id": "x", "score": 0.5}]}\n{"image": "b.png", "error": "no"}\n'
    )
    seeds = [f"{name}:".encode() + data for name, (data, _) in kinds.items()] + [b"answers:" + answers]

    def edit(seed: bytes) -> bytes:
        name, _, data = seed.partition(b":")
        own = either(edited_words, edited_words, edited_bytes, recoded)
        return name + b":" + own(data)

    def use(data: bytes) -> None:
        name, _, data = data.partition(b":")
        path = Path("x.csv")
        path.write_bytes(data)
        if name == b"answers":
            ask("evaluate", "submission", path, "-o", "out.csv", "-q")
            assert Path("out.csv").read_bytes().startswith(b"id,")
            return
        done = ask("evaluate", *kinds[name.decode()][1](path), "--format", "json")
        for row in json.loads(done):
            assert all(0 <= value <= 1 for value in row.values() if isinstance(value, float)), row

    run("tables", seeds, use, count, folder, edit)


def _ground_truth(protocol: int, make: Callable[[list[float]], object] = list) -> bytes:
    rows = [
        {"bbx": make([136.5, 34.1, 648.5, 955.7]), "easy": make([0]), "hard": make([1]), "junk": make([2])},
        {"bbx": make([1.0, 2.0, 3.0, 4.0]), "easy": make([3, 4]), "hard": make([]), "junk": make([])},
    ]
    names = {"imlist": [f"i{at}" for at in range(6)], "qimlist": ["q0", "q1"]}
    return pickle.dumps({**names, "gnd": rows}, protocol)


def pickles(count: int, folder: Path) -> None:
    """Ground truth of revisited Oxford and Paris."""
    Path("ranking.csv").write_bytes(b"id,images\nq0,i0 i1\nq1,i3\n")

    def numbers(values: list[float]) -> object:
        return np.array(values, np.int64 if all(isinstance(value, int) for value in values) else np.float64)

    def use(data: bytes) -> None:
        Path("x.pkl").write_bytes(data)
        ask("evaluate", "revisited", "ranking.csv", "x.pkl", "--format", "json")

    seeds = [_ground_truth(protocol, make) for protocol in range(6) for make in (list, numbers)]
    run("pickles", seeds, use, count, folder)


def rules(count: int, folder: Path) -> None:
    """Rules on what is no landmark."""
    from landmark_onnx.recognition.rules import read_rules

    path = folder / "rules.toml"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        assert all(0 < rule.score <= 1 and 0 < rule.area <= 1 and rule.classes for rule in read_rules(path))

    seed = resources.files("landmark_onnx.recognition").joinpath("no_landmark.toml").read_bytes()
    run("rules", [seed], use, count, folder, either(edited_toml, edited_toml, edited_bytes, recoded))


def manifests(count: int, folder: Path) -> None:
    """Those of a bundle, of an ensemble, of a store's record, and of an index that Qdrant keeps."""
    from landmark_onnx.deploy.lockfile import FILE as BUNDLE
    from landmark_onnx.search.qdrant_place import Place
    from landmark_onnx.store.records import read_record, record_path

    indexed.folder(folder / "f", IDS)
    model = fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    ask("bundle", fakes.RETRIEVAL, "-o", "b", "-q")
    ask("verify", fakes.RETRIEVAL)
    place = Place(url="http://localhost:1", collection="c", following=3, ensemble=indexed.ensemble())
    place.write(folder / "q")
    indexed.ensemble().save(folder / "e")
    kinds: dict[bytes, tuple[Path, Callable[[], object]]] = {
        b"bundle": (Path("b", BUNDLE), lambda: ask("bundle", "--check", "b")),
        b"ensemble": (
            Path("e/ensemble.json"),
            lambda: ask("index", "build", "f", "-o", "i", "--replace", "--ensemble", "e", "-q"),
        ),
        b"qdrant": (Path("q/qdrant.json"), lambda: Place.read(Path("q"))),
        b"record": (record_path(model), lambda: (read_record(model), ask("models", "list", "--json"))),
    }
    seeds = [name + b":" + path.read_bytes() for name, (path, _) in kinds.items()]

    def edit(seed: bytes) -> bytes:
        name, _, data = seed.partition(b":")
        return name + b":" + DOCUMENT(data)

    def use(data: bytes) -> None:
        name, _, data = data.partition(b":")
        path, command = kinds[name]
        path.write_bytes(data)
        command()

    run("manifests", seeds, use, count, folder, edit)


KINDS = {
    kind.__name__: kind
    for kind in (cards, metadata, features, index, contents, tars, lists, tables, pickles, rules, manifests)
}

if __name__ == "__main__":
    workspace(Path(sys.argv[3]))
    KINDS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
