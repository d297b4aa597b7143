import sys
import types

import pytest

from landmark_onnx.errors import MissingExtraError, SessionError
from landmark_onnx.runtime.gpu_options import cuda_options
from landmark_onnx.runtime.providers import (
    CPU,
    CUDA,
    EXTRAS,
    OPENVINO,
    OPENVINO_PACKAGE,
    SHORT_NAMES,
    TENSORRT,
    ProviderRequest,
    full_name,
    install_hint,
    onnxruntime,
    openvino,
    plan,
    preload,
    takes_openvino,
)

GPU = [TENSORRT, CUDA, CPU]


def test_auto_prefers_cuda_and_keeps_the_cpu_for_the_rest():
    assert plan(ProviderRequest(), [CPU]) == [(CPU, {})]
    assert plan(ProviderRequest(), GPU) == [(CUDA, cuda_options(None)), (CPU, {})]
    assert plan(ProviderRequest(name="AUTO"), [OPENVINO, CPU]) == [(CPU, {})]


@pytest.mark.parametrize(("name", "wanted"), [*SHORT_NAMES.items(), *((full, full) for full in SHORT_NAMES.values())])
def test_short_and_full_names(name, wanted):
    available = [*SHORT_NAMES.values(), OPENVINO]
    assert plan(ProviderRequest(name=name), available)[0][0] == wanted
    assert full_name(name, []) == wanted


def test_short_names_in_any_case_and_any_name_that_onnx_runtime_knows():
    assert full_name("CUDA", []) == CUDA
    assert full_name("DmlExecutionProvider", ["DmlExecutionProvider"]) == "DmlExecutionProvider"
    assert plan(ProviderRequest(name="DmlExecutionProvider"), ["DmlExecutionProvider", CPU]) == [
        ("DmlExecutionProvider", {}),
        (CPU, {}),
    ]


@pytest.mark.parametrize("name", ["gpu", "", "cudaexecutionprovider", "DmlExecutionProvider"])
def test_an_unknown_name_lists_the_names(name):
    with pytest.raises(SessionError, match=f"called '{name}'; there are: auto, cpu, cuda, tensorrt, openvino$"):
        plan(ProviderRequest(name=name), [CPU])


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_compiled_in_says_what_to_install(name):
    extra = EXTRAS[SHORT_NAMES[name]]
    with pytest.raises(SessionError) as caught:
        plan(ProviderRequest(name=name), [CPU])
    assert "is not part of the installed ONNX Runtime; " in str(caught.value)
    assert f"with extra {extra}" in str(caught.value)


def test_options_go_to_the_provider_that_was_asked_for():
    request = ProviderRequest(name="cuda", options={"gpu_mem_limit": "1", "cudnn_conv_algo_search": "DEFAULT"})
    assert plan(request, GPU) == [
        (CUDA, {**cuda_options(None), "gpu_mem_limit": "1", "cudnn_conv_algo_search": "DEFAULT"}),
        (CPU, {}),
    ]
    assert plan(ProviderRequest(options={"a": "b"}), GPU)[0] == (CUDA, {**cuda_options(None), "a": "b"})
    other = plan(ProviderRequest(name=OPENVINO, options={"device_type": "GPU"}), [OPENVINO, CPU])
    assert other == [(OPENVINO, {"device_type": "GPU"}), (CPU, {})]


def test_tensorrt_leaves_to_cuda_what_it_cannot_run():
    request = ProviderRequest(name="tensorrt", options={"trt_fp16_enable": "1"}, device_id=1)
    assert plan(request, GPU) == [
        (TENSORRT, {"device_id": "1", "trt_fp16_enable": "1"}),
        (CUDA, {**cuda_options(None), "device_id": "1"}),
        (CPU, {}),
    ]
    assert plan(ProviderRequest(name="tensorrt"), [TENSORRT, CPU]) == [(TENSORRT, {}), (CPU, {})]


def test_device_id():
    assert plan(ProviderRequest(name="cuda", device_id=0), GPU)[0][1]["device_id"] == "0"
    assert "device_id" not in plan(ProviderRequest(name="cuda"), GPU)[0][1]
    given = ProviderRequest(name="cuda", device_id=1, options={"device_id": "2"})
    assert plan(given, GPU)[0][1]["device_id"] == "2"


@pytest.mark.parametrize("name", ["cpu", "auto", OPENVINO])
def test_a_device_id_where_it_means_nothing(name):
    with pytest.raises(SessionError, match="a device id means nothing to"):
        plan(ProviderRequest(name=name, device_id=0), [OPENVINO, CPU])


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_options_where_the_cpu_takes_none(name):
    with pytest.raises(SessionError, match="CPUExecutionProvider takes no provider options, got: a, b"):
        plan(ProviderRequest(name=name, options={"a": "1", "b": "2"}), [CPU])


def test_plans_do_not_share_their_options():
    plan(ProviderRequest(name="cuda"), GPU)[0][1]["x"] = "y"
    assert "x" not in plan(ProviderRequest(name="cuda"), GPU)[0][1]


def test_hints_name_the_extra_and_what_pip_cannot_bring():
    assert "with extra gpu (CUDA 13" in install_hint(CUDA)
    assert "or gpu-cu12 (CUDA 12)" in install_hint(CUDA)
    assert "with extra gpu and" in install_hint(TENSORRT)
    assert "TensorRT 10" in install_hint(TENSORRT)
    assert install_hint(OPENVINO_PACKAGE).endswith("install landmark-onnx with extra openvino")
    assert install_hint("DmlExecutionProvider") == "install the ONNX Runtime package that brings DmlExecutionProvider"


def test_a_missing_runtime_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", types.ModuleType("openvino"))
    with pytest.raises(MissingExtraError, match=r"\(or with extra gpu, gpu-cu12\)$"):
        onnxruntime()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError) as caught:
        onnxruntime()
    message = "ONNX Runtime is not installed; run: pip install 'landmark-onnx[cpu]'"
    assert str(caught.value) == f"{message} (or with extra gpu, gpu-cu12, openvino)"
    assert caught.value.extra == "cpu"
    assert isinstance(caught.value, ImportError)


def test_the_empty_package_that_uninstalling_leaves(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(MissingExtraError, match="damaged: uninstall every onnxruntime package first"):
        onnxruntime()


@pytest.mark.parametrize(("name", "loads"), [("cuda", True), ("tensorrt", True), ("openvino", False), ("cpu", False)])
def test_nvidia_libraries_are_loaded_for_nvidia_alone(name, loads, capsys):
    def preload_dlls():
        print("Failed to load libcudnn.so.9")  # noqa: T201

    preload(
        types.SimpleNamespace(preload_dlls=preload_dlls), plan(ProviderRequest(name=name), [*GPU, OPENVINO_PACKAGE])
    )
    output = capsys.readouterr()
    assert output.out == "", "stdout is for answers"
    assert ("libcudnn" in output.err) == loads


def test_a_runtime_that_cannot_preload():
    preload(types.SimpleNamespace(), plan(ProviderRequest(name="cuda"), GPU))


@pytest.mark.parametrize(
    ("name", "taken"), [("openvino", True), ("OpenVINO", True), (OPENVINO, False), ("cpu", False), ("auto", False)]
)
def test_when_the_openvino_package_runs_models(name, taken):
    assert takes_openvino(ProviderRequest(name=name)) is taken


def test_a_missing_openvino_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SessionError, match=r"openvino package is not installed; .* with extra openvino"):
        openvino()


def test_bf16_is_tensorrts_alone_in_onnx_runtime():
    for name in ("cpu", "auto", "cuda", OPENVINO):
        with pytest.raises(SessionError, match="has no bf16; it takes --provider openvino or tensorrt"):
            plan(ProviderRequest(name=name, precision="bf16"), [*GPU, OPENVINO])
    chain = plan(ProviderRequest(name="tensorrt", precision="bf16"), GPU)
    assert chain[0] == (TENSORRT, {"trt_bf16_enable": "1"})
