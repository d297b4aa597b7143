import asyncio
import dataclasses
import gc
import io
import re
import threading
import weakref
from pathlib import Path

import cv2
import numpy as np
import onnx
import PIL.Image
import pytest

import fakes
from landmark_onnx.errors import CardError, ImageError, ModelFileError, SessionError, UnknownModelError
from landmark_onnx.inference.postprocess import cosine
from landmark_onnx.model import Classifier, Detector, Retriever, similarity
from landmark_onnx.results import Classification, Detections, Embedding, Failure, Similarity
from landmark_onnx.runtime.providers import CPU, ProviderRequest
from landmark_onnx.store.catalogue import exported_path
from scheduled import SlowFile, reached, until

MAKE = {Retriever: fakes.make_retrieval, Classifier: fakes.make_cls, Detector: fakes.make_det}
RESULT = {Retriever: Embedding, Classifier: Classification, Detector: Detections}


@pytest.fixture
def photos(tmp_path):
    """Paths of five pictures of three shapes."""
    paths = []
    for number, size in enumerate([(90, 120), (90, 120), (120, 90), (100, 100), (90, 120)]):
        paths.append(tmp_path / f"{number}.png")
        assert cv2.imwrite(str(paths[-1]), fakes.photo(*size, seed=number))
    return paths


@pytest.fixture(params=MAKE, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def model(kind, tmp_path):
    return kind(MAKE[kind](tmp_path / "model.onnx"), threads=1)


def same(one, other):
    """Whether two results hold the same values, but for the noise of a batch."""
    ours, theirs = (dataclasses.asdict(result) for result in (one, other))
    arrays = [key for key, value in ours.items() if isinstance(value, np.ndarray)]
    assert arrays
    close = all(np.allclose(ours[key], theirs[key], rtol=0, atol=1e-4) for key in arrays)
    return close and ours.get("names") == theirs.get("names")


def test_a_path_bytes_and_pixels_give_the_same(kind, model, photos):
    pixels = cv2.imread(str(photos[0]))
    results = [model(photos[0]), model(str(photos[0])), model(photos[0].read_bytes()), model(pixels)]
    assert all(isinstance(result, RESULT[kind]) for result in results)
    assert all(same(results[0], result) for result in results)
    assert [result.image for result in results] == [str(photos[0]), str(photos[0]), "<bytes 0>", "<array 0>"]


def test_many_come_back_in_order_and_as_each_alone(model, photos):
    for images in (photos, tuple(photos), iter(photos)):
        results = model(images)
        assert isinstance(results, list)
        assert [result.image for result in results] == [str(path) for path in photos]
        assert all(same(result, model(path)) for result, path in zip(results, photos, strict=True))
    assert model([]) == []
    assert [result.image for result in model.stream(photos)] == [str(path) for path in photos]


def test_a_failure_among_many_and_alone(model, photos, tmp_path):
    missing = tmp_path / "none.jpg"
    first, failed, last = model([photos[0], missing, photos[1]])
    assert isinstance(failed, Failure)
    assert failed.error == f"{missing}: No such file or directory"
    assert same(first, model(photos[0]))
    assert same(last, model(photos[1]))
    with pytest.raises(ImageError, match=r"none\.jpg: No such file or directory"):
        model(missing)


def test_a_model_by_name_comes_from_the_store(kind, photos):
    name = {Retriever: fakes.RETRIEVAL, Classifier: fakes.CLS, Detector: fakes.DET}[kind]
    with pytest.raises(ModelFileError, match=f"landmark-onnx models add FILE --name {name}$"):
        kind(name)
    MAKE[kind](exported_path(name))
    assert same(kind(name)(photos[0]), kind(exported_path(name))(photos[0]))
    assert kind(name).card.name == name


def test_an_unknown_name(kind):
    with pytest.raises(UnknownModelError):
        kind("nothing")


def test_a_model_of_another_task(kind, tmp_path):
    others = [other for other in MAKE if other is not kind]
    for other in others:
        path = MAKE[other](tmp_path / "other.onnx")
        with pytest.raises(ModelFileError, match=rf"other\.onnx: its task is {other.task}, wanted {kind.task}"):
            kind(path)


def test_a_file_without_a_card(kind, tmp_path):
    path = MAKE[kind](tmp_path / "model.onnx")
    onnx.save(fakes.unsealed(path), path)
    with pytest.raises(ModelFileError, match=r"model\.onnx: no model card inside: not exported by landmark-onnx"):
        kind(path)
    fakes.write_sealed(path, {"card": {"name": "mine"}})
    with pytest.raises(CardError, match=r"model\.onnx: card: the key 'task' is missing"):
        kind(path)


def test_a_card_that_names_tensors_the_file_lacks(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    onnx.save(fakes.unsealed(path), path)
    card = dataclasses.replace(fakes.small_card(fakes.RETRIEVAL), outputs={"embedding": "features"})
    fakes.write_sealed(path, {"card": card.to_dict()})
    with pytest.raises(ModelFileError, match="outputs: wanted features, got embedding"):
        Retriever(path)


def test_providers(kind, tmp_path):
    path = MAKE[kind](tmp_path / "model.onnx")
    for provider in ("auto", "cpu", "CPU", CPU, ProviderRequest(name="cpu")):
        assert kind(path, provider=provider).session.provider == CPU
    with pytest.raises(SessionError, match="no execution provider is called 'gpu'"):
        kind(path, provider="gpu")


def test_the_limit_of_pixels(kind, tmp_path, photos):
    model = kind(MAKE[kind](tmp_path / "model.onnx"), max_pixels=100)
    with pytest.raises(ImageError, match=r"0\.png: 120x90 pixels are over the limit of 100"):
        model(photos[0])


def test_one_image_that_cannot_be_run_is_a_session_error(tmp_path, monkeypatch):
    model = Retriever(fakes.make_retrieval(tmp_path / "model.onnx"))

    def out_of_memory(*_):
        raise SessionError("out of memory")

    monkeypatch.setattr(type(model.session), "run", out_of_memory)
    with pytest.raises(SessionError, match=r"^<array 0>: out of memory$"):
        model(fakes.photo())


def test_what_a_retriever_answers(tmp_path, photos):
    retriever = Retriever(fakes.make_retrieval(tmp_path / "model.onnx", dim=16))
    results = retriever(photos)
    assert all(result.vector.shape == (16,) and result.vector.dtype == np.float32 for result in results)
    compared = list(retriever.compare(photos[0], photos))
    assert [type(each) for each in compared] == [Similarity] * 5
    assert [each.query for each in compared] == [str(photos[0])] * 5
    assert [each.image for each in compared] == [str(path) for path in photos]
    assert compared[0].cosine == pytest.approx(1, abs=1e-6)
    for each, result in zip(compared, results, strict=True):
        assert each.cosine == pytest.approx(cosine(results[0].vector, result.vector), abs=1e-6)
        assert each.time is not None


def test_comparing_with_what_cannot_be_read(tmp_path, photos):
    retriever = Retriever(fakes.make_retrieval(tmp_path / "model.onnx"))
    good, bad = retriever.compare(photos[0], [photos[1], tmp_path / "none.jpg"])
    assert isinstance(good, Similarity)
    assert isinstance(bad, Failure)
    with pytest.raises(ImageError, match=r"none\.jpg"):
        list(retriever.compare(tmp_path / "none.jpg", photos))


def test_similarity_keeps_a_failure():
    failure = Failure(image="a", error="b")
    assert similarity(Embedding(vector=np.ones(2, np.float32)), failure) is failure


def test_what_a_classifier_answers(tmp_path, photos):
    classifier = Classifier(fakes.make_cls(tmp_path / "model.onnx", classes=9, labels={0: "zero", 4: "four"}))
    result = classifier(photos[0])
    assert len(result.indices) == len(result.scores) == 5
    assert (np.diff(result.scores) <= 0).all()
    assert result.names == tuple({0: "zero", 4: "four"}.get(index) for index in result.indices.tolist())
    classifier.top = 9
    assert sorted(classifier(photos[0]).indices.tolist()) == list(range(9))
    assert classifier(photos[0]).scores.sum() == pytest.approx(1, abs=1e-5)


def test_what_a_detector_answers(tmp_path, photos):
    detector = Detector(fakes.make_det(tmp_path / "model.onnx", classes=4, rois=20, labels={2: "Car"}))
    for result, path in zip(detector(photos), photos, strict=True):
        height, width = cv2.imread(str(path)).shape[:2]
        assert len(result.boxes) > 3
        assert set(result.classes.tolist()) <= {1, 2, 3}
        assert (result.scores >= np.float32(0.1)).all()
        assert (result.boxes[:, :2] >= 0).all()
        ends = result.boxes[:, :2] + result.boxes[:, 2:] - 1
        assert (ends <= (width, height)).all()
        assert result.names == tuple("Car" if index == 2 else None for index in result.classes.tolist())


def test_a_detector_that_finds_nothing(tmp_path, photos):
    detector = Detector(fakes.make_det(tmp_path / "model.onnx", rois=0))
    result = detector(photos[0])
    assert isinstance(result, Detections)
    assert result.to_json() == {"image": str(photos[0]), "detections": []}
    assert result.boxes.shape == (0, 4)


def make_uint8(path, twin):
    """The model of `twin` behind a normalisation of its own: image (N, H, W, 3) uint8 BGR."""
    card = fakes.small_card(fakes.CLS)
    proto = fakes.unsealed(twin)
    constants = {
        "rgb": np.array([2, 1, 0]),
        "mean": 255 * np.array(card.preprocess.mean, np.float32).reshape(1, 3, 1, 1),
        "std": 255 * np.array(card.preprocess.std, np.float32).reshape(1, 3, 1, 1),
    }
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Gather", ["planes", "rgb"], ["colours"], axis=1),
        onnx.helper.make_node("Sub", ["colours", "mean"], ["centred"]),
        onnx.helper.make_node("Div", ["centred", "std"], ["normalised"]),
    ]
    proto.graph.node[0].input[0] = "normalised"
    inside = [*nodes, *proto.graph.node]
    del proto.graph.node[:], proto.graph.input[:]
    proto.graph.node.extend(inside)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", "h", "w", 3]))
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(proto, path)
    fakes.write_sealed(path, {"card": card.to_dict(), "input": "uint8"})
    return path


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_file_that_normalises_by_itself(provider, tmp_path, photos):
    if provider == "openvino":
        pytest.importorskip("openvino")
    twin = fakes.make_cls(tmp_path / "twin.onnx")
    model = Classifier(make_uint8(tmp_path / "uint8.onnx", twin), provider=provider, threads=1)
    assert model.session.input_kind == "uint8"
    for got, wanted in zip(model(photos), Classifier(twin, threads=1)(photos), strict=True):
        assert same(got, wanted)


def test_a_precision_is_the_requests_unless_it_is_given(kind, tmp_path, photos):
    path = MAKE[kind](tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=r"model\.int8\.onnx: no such file; make it once: landmark-onnx quantize"):
        kind(path, precision="int8")
    small = fakes.make_reduced(path, make=MAKE[kind], seed=7)
    assert same(kind(path, precision="int8", threads=1)(photos[0]), kind(small, threads=1)(photos[0]))
    assert kind(path, provider=ProviderRequest(precision="int8")).session.path == small
    assert kind(path, provider=ProviderRequest(precision="int8"), precision="fp32").session.path == path


def test_precision_and_notes_on_the_command_line(tmp_path, photos, monkeypatch, capsys, store):
    from landmark_onnx.cli import main

    path = fakes.make_cls(tmp_path / "model.onnx")
    command = ["cls", str(photos[0]), "--model", str(path), "--provider", "cpu", "--precision", "int8"]
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 1
    assert f"make it once: landmark-onnx quantize {path} --precision int8" in capsys.readouterr().err
    fakes.make_reduced(path, make=fakes.make_cls)
    monkeypatch.setattr("landmark_onnx.runtime.compiled_cache.LEAST_BYTES", 0)
    store.write_text("a file where the folder should be")
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 0
    assert "landmark-onnx: model.int8.onnx: no machine cache: " in capsys.readouterr().err


class Broken:
    """A file that cannot be read."""

    def read(self, size):
        raise RuntimeError("gone")


def test_what_is_no_image_costs_the_others_nothing(tmp_path, photos):
    retriever = Retriever(fakes.make_retrieval(tmp_path / "model.onnx"))
    data = photos[0].read_bytes()
    good = [
        str(photos[0]),
        photos[0],
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        cv2.imread(str(photos[0])),
    ]
    bad = [None, 3, {"a": 1}, [photos[0]], ("a", "b"), "a\0b.jpg", "", b"", Broken(), io.StringIO("x"), object()]
    bad += [np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), np.uint8)]
    for images in ([*good, *bad], (each for each in [*good, *bad])):
        answers = retriever(images)
        assert [isinstance(answer, Failure) for answer in answers] == [False] * len(good) + [True] * len(bad)
        assert {answer.kind for answer in answers[len(good) :]} == {ImageError}
        for answer in answers[: len(good)]:
            # Which of them share a batch is a matter of time.
            np.testing.assert_allclose(answer.vector, answers[0].vector, rtol=0, atol=1e-4)
        good[5].seek(0)


class Tensor:
    """As other libraries have them: iterable, by rows."""

    ndim = 3

    def __iter__(self):
        return iter([[1], [2]])


@pytest.mark.parametrize("image", [None, 3, {"0.jpg": 1}, io.StringIO("x"), object(), Tensor(), np.zeros((4, 4))])
def test_one_thing_that_is_no_image_is_an_image_error(tmp_path, image):
    with pytest.raises(ImageError, match=": wanted "):
        Retriever(fakes.make_retrieval(tmp_path / "model.onnx"))(image)


def test_one_image_where_there_may_be_many_is_one(tmp_path, photos):
    retriever = Retriever(fakes.make_retrieval(tmp_path / "model.onnx"))
    data = photos[0].read_bytes()
    wanted = retriever(photos[0]).vector
    for image in (bytearray(data), memoryview(data), io.BytesIO(data), PIL.Image.open(photos[0])):
        np.testing.assert_array_equal(retriever(image).vector, wanted)
    (streamed,) = retriever.stream(str(photos[0]))
    np.testing.assert_array_equal(streamed.vector, wanted)


def test_what_a_source_raises_is_raised_after_the_answers_before(tmp_path, photos):
    def images():
        yield photos[0]
        yield None
        raise OSError("the disk is gone")

    answers = Retriever(fakes.make_retrieval(tmp_path / "model.onnx")).stream(images())
    assert isinstance(next(answers), Embedding)
    assert isinstance(next(answers), Failure)
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_arrays_in_the_order_of_colours_that_was_said(kind, tmp_path, photos):
    path = MAKE[kind](tmp_path / "model.onnx")
    image = cv2.imread(str(photos[0]))
    wanted = kind(path, threads=1)(image)
    model = kind(path, threads=1, colour="rgb")
    for source in (image[..., ::-1], PIL.Image.fromarray(image[..., ::-1].copy()), photos[0]):
        assert same(model(source), wanted)
    assert not same(model(image), wanted)
    with pytest.raises(ImageError, match="colour: wanted bgr or rgb, got 'RGB'"):
        kind(path, colour="RGB")


def test_a_damaged_image_is_refused_or_accepted(kind, tmp_path, caplog):
    path = MAKE[kind](tmp_path / "model.onnx")
    whole = cv2.imencode(".jpg", fakes.photo())[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"cut\.jpg: damaged: premature end"):
        kind(path)(tmp_path / "cut.jpg")
    model = kind(path, damaged="accept")
    with caplog.at_level("WARNING", "landmark_onnx"):
        first, second = model([tmp_path / "cut.jpg", tmp_path / "none.jpg"])
    assert not isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert [message.partition(": ")[0] for message in caplog.messages] == [str(tmp_path / "cut.jpg")]


def forgotten(models):
    """Let go of a model, which a thread may hold for a moment, and wait for its threads to end."""
    alive = weakref.ref(models.pop())
    until(lambda: gc.collect() >= 0 and alive() is None)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("landmark-onnx")])


def test_an_awaited_answer_is_the_same_to_the_bit(kind, tmp_path, photos):
    models = [kind(MAKE[kind](tmp_path / "model.onnx"), threads=1)]
    pixels = cv2.imread(str(photos[0]))

    async def ask(sources):
        return [await models[0].answer(source) for source in sources]

    sources = [*photos, pixels]
    answers = asyncio.run(ask(sources))
    assert [answer.to_json() for answer in answers] == [models[0](source).to_json() for source in sources]
    assert all(answer.time.inference > 0 for answer in answers)
    forgotten(models)


def test_tasks_of_several_loops_are_answered_together_and_errors_are_their_own(tmp_path, photos):
    models = [Retriever(fakes.make_retrieval(tmp_path / "model.onnx"), threads=1)]

    async def ask():
        sources = [*photos * 40, b"no image"]
        return await asyncio.gather(*map(models[0].answer, sources), return_exceptions=True)

    for _ in range(2):
        *answers, error = asyncio.run(ask())
        assert len(answers) == 200
        assert all(same(answer, models[0](photo)) for answer, photo in zip(answers, photos * 40, strict=True))
        assert type(error) is ImageError
        with pytest.raises(ImageError) as alone:
            models[0](b"no image")
        assert str(error) == str(alone.value)
        del error, alone
    forgotten(models)


def test_a_task_that_is_cancelled_drops_its_image(tmp_path):
    models, slow = [Retriever(fakes.make_retrieval(tmp_path / "model.onnx"), threads=1)], SlowFile(b"no image")

    async def ask():
        task = asyncio.create_task(models[0].answer(slow))
        await asyncio.to_thread(reached, slow.gate.entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert models[0]._scheduler.waiting == 0
        slow.gate.opened.set()

    asyncio.run(ask())
    forgotten(models)


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), fakes.photo(seed=number))
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "reference" / "python.md"
    [example] = re.findall(r"^```python\n(import asyncio.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    space = {}
    exec(example, space)
    assert capsys.readouterr().out == "[(512,), (512,)]\n"
    forgotten([space.pop("retriever")])
