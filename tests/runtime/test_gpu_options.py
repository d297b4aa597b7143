import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx.cards.catalogue import card, original_cards
from landmark_onnx.cards.geometry import LEAST_SIDE, fixed_sides, side_bounds
from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.errors import SessionError
from landmark_onnx.inference.preprocess import floored_size, preprocess
from landmark_onnx.runtime.gpu_options import (
    ShapeProfile,
    cuda_options,
    graph_refusal,
    shape_profiles,
    tensorrt_options,
)
from landmark_onnx.runtime.providers import CPU, CUDA, TENSORRT, ProviderRequest, plan

GPU = [TENSORRT, CUDA, CPU]
RETRIEVAL, CLS, DET = (ShapeProfile(card=card(name), batch_size=4) for name in (fakes.RETRIEVAL, fakes.CLS, fakes.DET))


def test_cuda_searches_long_for_one_shape_and_not_for_many():
    found = {name: cuda_options(ShapeProfile(card=known)) for name, known in original_cards().items()}
    assert {options["arena_extend_strategy"] for options in found.values()} == {"kSameAsRequested"}
    searches = {card(name).task: options["cudnn_conv_algo_search"] for name, options in found.items()}
    assert searches == {"retrieval": "HEURISTIC", "cls": "EXHAUSTIVE", "det": "HEURISTIC"}
    assert cuda_options(None)["cudnn_conv_algo_search"] == "HEURISTIC"


def test_fixed_sides():
    assert fixed_sides(Preprocess(resize="exact", size=300, interpolation="linear", width=200)) == (300, 200)
    assert fixed_sides(Preprocess(resize="exact", size=300, interpolation="linear")) == (300, 300)
    assert fixed_sides(Preprocess(resize="exact", size=300, interpolation="linear", crop=224)) == (224, 224)
    assert fixed_sides(card(fakes.RETRIEVAL).preprocess) is None


def test_profiles():
    assert shape_profiles(CLS) == {
        "trt_profile_min_shapes": "image:1x3x224x224",
        "trt_profile_opt_shapes": "image:4x3x224x224",
        "trt_profile_max_shapes": "image:4x3x224x224",
    }
    assert shape_profiles(RETRIEVAL) == {
        "trt_profile_min_shapes": "image:1x3x32x32",
        "trt_profile_opt_shapes": "image:4x3x448x597",
        "trt_profile_max_shapes": "image:4x3x1344x1344",
    }
    assert shape_profiles(DET) == {
        "trt_profile_min_shapes": "image:1x3x32x32,im_info:1x3",
        "trt_profile_opt_shapes": "image:1x3x800x1066,im_info:1x3",
        "trt_profile_max_shapes": "image:1x3x1333x1333,im_info:1x3",
    }
    unbounded = dataclasses.replace(RETRIEVAL.card.preprocess, max_ratio=0.0)
    free = ShapeProfile(card=dataclasses.replace(RETRIEVAL.card, preprocess=unbounded))
    assert shape_profiles(free) == {}


def test_profiles_of_uint8_input_and_renamed_tensors():
    renamed = dataclasses.replace(CLS.card, inputs={"image": "pixels"})
    found = shape_profiles(ShapeProfile(card=renamed, batch_size=2, channels_last=True))
    assert found["trt_profile_max_shapes"] == "pixels:2x224x224x3"


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_every_shape_of_the_rule_is_within_the_bounds(height, width):
    rule = RETRIEVAL.card.preprocess
    least, most = side_bounds(rule)
    assert all(least <= side <= most for side in floored_size(rule, width, height))


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (20, 200), (500, 40), (64, 64)])
def test_every_shape_of_a_detector_is_within_the_bounds(height, width):
    rule = fakes.small_card(fakes.DET).preprocess
    shape = preprocess(rule, np.zeros((height, width, 3), np.uint8))["image"].shape
    assert max(shape[2:]) <= side_bounds(rule)[1]
    assert side_bounds(rule)[0] == LEAST_SIDE


def test_tensorrt_options(tmp_path):
    assert tensorrt_options(None, "fp32", None) == {}
    assert tensorrt_options(None, "fp16", tmp_path) == {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }
    assert tensorrt_options(None, "int8", None) == {"trt_int8_enable": "1"}
    assert tensorrt_options(None, "bf16", None) == {"trt_bf16_enable": "1"}
    assert tensorrt_options(CLS, "fp32", None) == shape_profiles(CLS)


def test_the_user_comes_before_all_of_these(tmp_path):
    given = {"trt_engine_cache_path": "/mine", "trt_fp16_enable": "0", "trt_profile_max_shapes": "image:8x3x224x224"}
    request = ProviderRequest(name="tensorrt", options=given, precision="fp16", device_id=2)
    (name, options), cuda, cpu = plan(request, GPU, CLS, tmp_path)
    assert (name, cpu) == (TENSORRT, (CPU, {}))
    assert options == tensorrt_options(CLS, "fp16", tmp_path) | given | {"device_id": "2"}
    assert cuda == (CUDA, {**cuda_options(CLS), "device_id": "2"})
    request = ProviderRequest(name="cuda", options={"cudnn_conv_algo_search": "DEFAULT", "gpu_mem_limit": "9"})
    assert plan(request, GPU, CLS)[0][1] == {
        "cudnn_conv_algo_search": "DEFAULT",
        "gpu_mem_limit": "9",
        "arena_extend_strategy": "kSameAsRequested",
    }


@pytest.mark.parametrize(("provider", "option"), [("cuda", "enable_cuda_graph"), ("tensorrt", "trt_cuda_graph_enable")])
def test_a_cuda_graph_takes_a_fixed_shape(provider, option):
    request = ProviderRequest(name=provider, options={option: "1"})
    assert plan(request, GPU, CLS)[0][1][option] == "1"
    with pytest.raises(SessionError, match=f"{option}: a CUDA graph replays one shape, and {fakes.DET} takes"):
        plan(request, GPU, DET)
    assert graph_refusal({option: "0"}, DET) == ""
