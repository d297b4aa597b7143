import dataclasses
import sys
import types

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import fakes
from landmark_onnx import Retriever
from landmark_onnx.errors import MissingExtraError, ModelFileError, SessionError, reason_of
from landmark_onnx.modelfile.metadata import append_metadata
from landmark_onnx.runtime.gpu_options import cuda_options
from landmark_onnx.runtime.onnxruntime_backend import FATAL
from landmark_onnx.runtime.providers import CPU, CUDA, OPENVINO, TENSORRT, ProviderRequest
from landmark_onnx.runtime.session import Session


class FakeOptions(types.SimpleNamespace):
    """Takes any attribute, and keeps the configuration entries."""

    def __init__(self):
        super().__init__(entries={})

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


class FakeRuntime(types.ModuleType):
    """An onnxruntime that has `available` compiled in and, as the real one does, runs on `works` without a word.

    fails: what creating a session on anything but the CPU raises. created: the providers of each try.
    """

    def __init__(self, available, works, fails=None):
        super().__init__("onnxruntime")
        self.__version__ = "1.32.0"
        self.created, self.preloaded, self.options = [], 0, []
        runtime = self

        class InferenceSession:
            def __init__(self, path, options, providers, enable_fallback=True):
                runtime.created.append(providers)
                runtime.options.append(options)
                assert not enable_fallback, "ONNX Runtime's fallback prints to stdout"
                self.providers = [name for name, _ in providers if name in works]
                if fails and providers[0][0] != CPU:
                    raise fails

            def get_providers(self):
                return self.providers

            def get_modelmeta(self):
                return types.SimpleNamespace(custom_metadata_map={"a": "b"})

            def get_inputs(self):
                return [types.SimpleNamespace(name="image", shape=["n", 3, "h", "w"], type="tensor(float)")]

            def get_outputs(self):
                return [types.SimpleNamespace(name="embedding", shape=["n", 512], type="tensor(float)")]

        self.InferenceSession = InferenceSession
        self.SessionOptions = FakeOptions
        self.get_available_providers = lambda: available

    def preload_dlls(self):
        self.preloaded += 1


@pytest.fixture
def runtime(monkeypatch):
    def install(available, works, fails=None):
        fake = FakeRuntime(available, works, fails)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    return install


@pytest.fixture
def some_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "full", "extra"),
    [("cuda", CUDA, "gpu"), ("tensorrt", TENSORRT, "gpu"), (CUDA, CUDA, "gpu")],
)
def test_an_explicit_provider_that_is_silently_replaced_is_an_error(name, full, extra, runtime, some_file):
    fake = runtime([TENSORRT, CUDA, OPENVINO, CPU], works=[CPU])
    with pytest.raises(SessionError) as caught:
        Session(some_file, ProviderRequest(name=name))
    assert str(caught.value).startswith(f"{full} does not start here (ONNX Runtime fell back); ")
    assert f"with extra {extra}" in str(caught.value)
    assert fake.created[0][0][0] == full


def test_tensorrt_that_falls_back_to_cuda_is_an_error_too(runtime, some_file):
    runtime([TENSORRT, CUDA, CPU], works=[CUDA, CPU])
    with pytest.raises(SessionError, match=r"^TensorrtExecutionProvider does not start here"):
        Session(some_file, ProviderRequest(name="tensorrt"))


def test_auto_goes_on_without_cuda_and_tells(runtime, some_file):
    runtime([CUDA, CPU], works=[CPU])
    session = Session(some_file)
    assert session.lost == CUDA
    assert session.providers == (CPU,)
    assert session.provider == CPU


def test_auto_with_cuda(runtime, some_file):
    fake = runtime([CUDA, CPU], works=[CUDA, CPU])
    session = Session(some_file, ProviderRequest(device_id=1, options={"gpu_mem_limit": "9"}))
    assert session.lost is None
    assert session.providers == (CUDA, CPU)
    assert session.provider == CUDA
    assert fake.created == [[(CUDA, {**cuda_options(None), "device_id": "1", "gpu_mem_limit": "9"}), (CPU, {})]]
    assert fake.preloaded == 1


def test_auto_on_a_machine_without_a_gpu_lost_nothing(runtime, some_file):
    fake = runtime([CPU], works=[CPU])
    assert Session(some_file).lost is None
    assert fake.preloaded == 0


def test_auto_goes_on_where_cuda_raises(runtime, some_file, capsys):
    fake = runtime([CUDA, CPU], works=[CUDA, CPU], fails=RuntimeError("CUDA failure 35: driver too old\nstack"))
    session = Session(some_file)
    assert session.lost == CUDA
    assert session.provider == CPU
    assert [chain[0][0] for chain in fake.created] == [CUDA, CPU]
    assert capsys.readouterr().out == ""


def test_an_explicit_provider_that_raises_gives_its_reason_and_the_remedy(runtime, some_file):
    fake = runtime([CUDA, CPU], works=[CUDA, CPU], fails=RuntimeError("CUDA failure 35: driver too old\nstack"))
    with pytest.raises(SessionError) as caught:
        Session(some_file, ProviderRequest(name="cuda"))
    assert "cannot start on CUDAExecutionProvider: CUDA failure 35: driver too old stack; in a fresh" in str(
        caught.value
    )
    assert "with extra gpu" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert len(fake.created) == 1


def test_a_damaged_file_is_no_fault_of_the_provider(runtime, some_file):
    broken = type("InvalidProtobuf", (Exception,), {})("Protobuf parsing failed.")
    fake = runtime([CUDA, CPU], works=[CUDA, CPU], fails=broken)
    with pytest.raises(ModelFileError, match=r"model\.onnx: not a usable ONNX model: Protobuf parsing failed"):
        Session(some_file, ProviderRequest(name="cuda"))
    assert len(fake.created) == 1


def test_options_of_the_session(runtime, some_file):
    fake = runtime([CPU], works=[CPU])
    session = Session(some_file, threads=3)
    (options,) = fake.options
    assert options.intra_op_num_threads == 3
    assert options.log_severity_level == FATAL
    assert options.enable_mem_pattern is False
    assert options.entries == {"session.disable_prepacking": "1"}
    assert session.metadata == {"a": "b"}


def test_a_missing_runtime(monkeypatch, some_file):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"landmark-onnx\[cpu\]"):
        Session(some_file, ProviderRequest(name="cpu"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"landmark-onnx\[cpu\]"):
        Session(some_file)


def test_a_missing_file_comes_before_a_missing_runtime(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelFileError, match=f"{path.name}: no such file"):
            Session(path)


# The real ONNX Runtime, on the CPU.


@pytest.fixture
def model(tmp_path):
    return fakes.make_retrieval(tmp_path / "model.onnx", dim=8)


CARD = fakes.small_card(fakes.RETRIEVAL)


def images(count, side=32):
    return {"image": np.random.default_rng(0).normal(size=(count, 3, side, side)).astype(np.float32)}


def test_a_run(model):
    session = Session(model, ProviderRequest(name="cpu"), threads=1)
    session.bind(CARD)
    assert session.providers == (CPU,)
    feeds = images(3)
    outputs = fakes.ask(session, CARD, feeds)
    assert set(outputs) == {"embedding"}
    weights = next(onnx.numpy_helper.to_array(value) for value in onnx.load(model).graph.initializer)
    np.testing.assert_allclose(outputs["embedding"], feeds["image"].mean(axis=(2, 3)) @ weights, rtol=0, atol=1e-5)


def test_feeds_of_any_layout(model):
    session = Session(model, threads=1)
    feeds = images(2)
    turned = {"image": np.ascontiguousarray(feeds["image"].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)}
    np.testing.assert_array_equal(
        fakes.ask(session, CARD, turned)["embedding"], fakes.ask(session, CARD, feeds)["embedding"]
    )


def test_a_card_may_rename_the_tensors(model, tmp_path):
    proto = fakes.unsealed(model)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "pixels"
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "features"
    path = tmp_path / "renamed.onnx"
    onnx.save(proto, path)
    session = Session(path, threads=1)
    renamed = dataclasses.replace(CARD, inputs={"image": "pixels"}, outputs={"embedding": "features"})
    session.bind(renamed)
    assert fakes.ask(session, renamed, images(1))["embedding"].shape == (1, 8)
    with pytest.raises(ModelFileError, match=r"renamed\.onnx: inputs: wanted image, got pixels"):
        session.bind(CARD)
    with pytest.raises(ModelFileError, match=r"renamed\.onnx: outputs: wanted embedding, got features"):
        session.bind(dataclasses.replace(renamed, outputs={}))


def test_a_file_of_another_task(model):
    with pytest.raises(ModelFileError, match="inputs: wanted im_info, got image"):
        Session(model).bind(fakes.small_card(fakes.DET))
    with pytest.raises(ModelFileError, match="outputs: wanted probability, got embedding"):
        Session(model).bind(fakes.small_card(fakes.CLS))


def test_a_detector_gives_its_outputs_by_name(tmp_path):
    session = Session(fakes.make_det(tmp_path / "det.onnx", classes=4, rois=6), threads=1)
    info = np.array([[32, 64, 1]], np.float32)
    outputs = fakes.ask(session, fakes.small_card(fakes.DET), {**images(1), "im_info": info})
    assert {name: values.shape for name, values in outputs.items()} == {
        "rois": (6, 4),
        "probability": (6, 4),
        "deltas": (6, 16),
    }


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((1, 4, 32, 32), np.float32), r"\(1, 4, 32, 32\)"),
        (np.zeros((3, 32, 32), np.float32), r"\(3, 32, 32\)"),
        (np.zeros((1, 3, 32, 32), np.float64), r"\(1, 3, 32, 32\)"),
    ],
)
def test_what_the_model_does_not_take_is_an_error_with_its_shape(array, shape, model):
    with pytest.raises(
        SessionError, match=rf"model\.onnx: CPUExecutionProvider cannot run image {shape}: .*"
    ) as caught:
        fakes.ask(Session(model, threads=1), CARD, {"image": array})
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def broken_models(model):
    """What may be wrong with a file -> its bytes."""
    data = model.read_bytes()
    yield "empty", b""
    yield "text", b"hello world"
    yield "half", data[: len(data) // 2]
    yield "head", data[:20]
    proto = fakes.unsealed(model)
    proto.graph.node[0].op_type = "NoSuchOp"
    yield "unknown op", proto.SerializeToString()
    proto = fakes.unsealed(model)
    proto.opset_import[0].version = 999
    yield "opset of tomorrow", proto.SerializeToString()
    proto = fakes.unsealed(model)
    proto.graph.node[0].input[0] = "nowhere"
    yield "loose end", proto.SerializeToString()


def test_a_damaged_file(model, tmp_path, capfd):
    for what, data in broken_models(model):
        path = tmp_path / f"{what}.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match=rf"{what}\.onnx: not a usable ONNX model: "):
            Session(path)
    assert capfd.readouterr().out == ""


def test_bytes_that_are_no_text(model, tmp_path):
    """Of a tensor's name, or of the metadata."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(fakes.unsealed(model).SerializeToString().replace(b"embedding", b"\xff" * 9))
    with pytest.raises(ModelFileError, match=r"damaged\.onnx: a name or its metadata are not UTF-8 text"):
        Session(damaged)
    damaged.write_bytes(model.read_bytes().replace(b"retrieval", b"\xff" * 9))
    with pytest.raises(ModelFileError, match=r"damaged\.onnx: its metadata are damaged: 'utf-8'"):
        Session(damaged)


@pytest.mark.parametrize("left", [None, 10])
def test_weights_beside_the_model_that_are_missing_or_cut(model, tmp_path, left):
    path = tmp_path / "large.onnx"
    onnx.save(fakes.unsealed(model), path, save_as_external_data=True, location="large.data", size_threshold=0)
    assert fakes.ask(Session(path, threads=1), CARD, images(1))["embedding"].shape == (1, 8)
    data = tmp_path / "large.data"
    if left is None:
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:left])
    with pytest.raises(ModelFileError, match=r"large\.onnx: not a usable ONNX model: .*xternal"):
        Session(path)


def test_the_real_session_does_not_fall_back_in_run(model):
    session = Session(model)
    assert session._runner.session._enable_fallback is False
    assert isinstance(session._runner.session, onnxruntime.InferenceSession)


EVIL = "\x1b[31mred\x07"


@pytest.fixture
def evil(tmp_path):
    """A model whose Reshape has an evil name and takes no image but one of 16 values."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 16])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)
        for name, sides in (("image", ["n", 3, "h", "w"]), ("embedding", [1, 16]))
    ]
    nodes = [helper.make_node("Reshape", ["image", "shape"], ["embedding"], name=EVIL)]
    graph = helper.make_graph(nodes, "evil", values[:1], values[1:], [shape])
    path = tmp_path / "evil.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_runtimes_reason_is_told_whole_and_nothing_of_a_file_reaches_the_terminal_raw(evil, capfd, provider):
    if provider == "openvino":
        pytest.importorskip("openvino")
    session = Session(evil, ProviderRequest(name=provider))
    with pytest.raises(SessionError) as caught:
        fakes.ask(session, fakes.small_card(fakes.RETRIEVAL), {"image": np.zeros((1, 3, 4, 5), np.float32)})
    text = str(caught.value)
    assert text.isprintable()
    assert text.endswith("conflicts with the reshape pattern (1.16)" if provider == "openvino" else "shape:{1,16}")
    assert "Exception from" not in text
    assert capfd.readouterr() == ("", "")


def test_a_reason_of_several_lines():
    assert reason_of(ValueError("wrong sizes for:\n index: 1 Got: 3\n")) == "wrong sizes for: index: 1 Got: 3"
    assert reason_of(RuntimeError("Exception from a.cpp:1:\nException from b.cpp:2:\n\nno file\n")) == "no file"
    assert reason_of(ValueError("\x1b[31m\x00")) == r"\x1b[31m\x00"
    assert reason_of(ValueError()) == reason_of(ValueError("\n \n")) == "ValueError"
    long = reason_of(ValueError("a" * 5000 + "b" * 5000))
    assert len(long) < 2010
    assert long.startswith("aaa")
    assert long.endswith("bbb")


@pytest.mark.parametrize("kind", ["relative", "absolute", "link"])
def test_weights_outside_the_models_folder_are_refused(kind, tmp_path):
    secret = tmp_path / "secret.bin"
    np.ones(4, np.float32).tofile(secret)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    location = {"relative": "../secret.bin", "absolute": str(secret), "link": "link.bin"}[kind]
    weight = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weight.external_data.add(key=key, value=value)
    sides = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", sides[:1], sides[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"model\.onnx: not a usable ONNX model"):
        Session(folder / "model.onnx")


# Threads, precisions, kinds of input.


@pytest.mark.parametrize(
    ("cores", "there", "given", "wanted"), [(2, 8, 0, 2), (8, 8, 0, 0), (2, 8, 5, 5), (1, 1, 0, 0)]
)
def test_no_more_threads_by_default_than_the_container_may_use(
    cores, there, given, wanted, runtime, some_file, monkeypatch
):
    monkeypatch.setattr("landmark_onnx.runtime.cpu.available_cores", lambda: cores)
    monkeypatch.setattr("os.cpu_count", lambda: there)
    fake = runtime([CPU], works=[CPU])
    Session(some_file, threads=given)
    assert fake.options[0].intra_op_num_threads == wanted


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_precision_runs_the_file_beside(precision, model, tmp_path):
    request = ProviderRequest(name="cpu", precision=precision)
    with pytest.raises(ModelFileError) as caught:
        Session(model, request)
    assert f"model.{precision}.onnx: no such file" in str(caught.value)
    assert f"landmark-onnx quantize {model} --precision {precision}" in str(caught.value)
    other = fakes.make_reduced(model, precision, dim=8, seed=3)
    session = Session(model, request, threads=1)
    assert session.path == other
    assert session.precision == precision
    wanted = fakes.ask(Session(other, threads=1), CARD, images(1))["embedding"]
    np.testing.assert_allclose(fakes.ask(session, CARD, images(1))["embedding"], wanted, rtol=0, atol=1e-6)


def test_a_reduced_file_that_is_named_itself_says_its_precision(model, tmp_path):
    assert Session(model).precision == "fp32"
    data = {"card": CARD.to_dict(), "precision": "int8"}
    reduced = tmp_path / "any.onnx"
    onnx.save(fakes.unsealed(model), reduced)
    with reduced.open("r+b") as file:
        append_metadata(file, data)
    assert Session(reduced).precision == Retriever(reduced).precision == "int8"


def test_bf16_on_the_cpu_of_onnx_runtime(model):
    with pytest.raises(SessionError, match="CPUExecutionProvider has no bf16; it takes --provider openvino"):
        Session(model, ProviderRequest(name="cpu", precision="bf16"))


def test_int8_keeps_packed_weights(runtime, model):
    fakes.make_reduced(model)
    fake = runtime([CPU], works=[CPU])
    Session(model, ProviderRequest(name="cpu", precision="int8"))
    Session(model.with_name("model.int8.onnx"), ProviderRequest(name="cpu"))
    assert [each.entries for each in fake.options] == [{"session.disable_prepacking": "0"}] * 2


def test_a_gpu_is_set_up_for_what_the_card_says(runtime, model, tmp_path):
    fixed = fakes.make_cls(tmp_path / "cls.onnx")
    fake = runtime([TENSORRT, CUDA, CPU], works=[TENSORRT, CUDA, CPU])
    Session(model, ProviderRequest(name="cuda"))
    Session(fixed, ProviderRequest(name="cuda"))
    Session(model, ProviderRequest(name="cuda"), card=fakes.small_card(fakes.CLS))
    searches = [chain[0][1]["cudnn_conv_algo_search"] for chain in fake.created]
    assert searches == ["HEURISTIC", "EXHAUSTIVE", "EXHAUSTIVE"]
    Session(fixed, ProviderRequest(name="tensorrt"), batch_size=3)
    options = fake.created[-1][0][1]
    assert options["trt_profile_max_shapes"] == "image:3x3x64x64"
    assert "trt_engine_cache_path" not in options, "a tiny file is not cached"


def test_tensorrt_keeps_its_engines_in_the_machine_cache(runtime, model, monkeypatch):
    monkeypatch.setattr("landmark_onnx.runtime.compiled_cache.LEAST_BYTES", 0)
    fake = runtime([TENSORRT, CUDA, CPU], works=[TENSORRT, CUDA, CPU])
    folders = []
    for batch_size in (1, 1, 2):
        Session(model, ProviderRequest(name="tensorrt", device_id=0), batch_size=batch_size)
        options = fake.created[-1][0][1]
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
        assert options["trt_timing_cache_path"] == options["trt_engine_cache_path"]
        folders.append(options["trt_engine_cache_path"])
    assert folders[0] == folders[1] != folders[2]


def test_a_gpu_runs_through_bound_buffers(runtime, model):
    runtime([CUDA, CPU], works=[CUDA, CPU])
    assert Session(model, ProviderRequest(name="cuda"))._runner._bindings._fixed is True
    assert Session(model, ProviderRequest(name="cpu"))._runner._bindings is None
