"""Peers: other runtimes on the same file or the same network, each as its own documentation has it used."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import SessionError
from landmark_onnx.extras import extra
from landmark_onnx.images.decode import read_image
from landmark_onnx.inference.decoders import to_detections
from landmark_onnx.inference.postprocess import to_classification, to_embedding
from landmark_onnx.inference.preprocess import collate, resize
from landmark_onnx.model import TOP
from landmark_onnx.modelfile.metadata import read_metadata
from landmark_onnx.results import Result
from landmark_onnx.tasks import INPUTS, OUTPUTS
from landmark_onnx.types import Tensors
from landmark_onnx_bench.batches import same_shape
from landmark_onnx_bench.targets import Contestant


class Peer(ABC):
    """Another runtime in the original's way: photos are read, prepared, run and decoded one step after another."""

    providers: tuple[str, ...] = ()
    note = ""

    def __init__(self, contestant: Contestant) -> None:
        self.card = ModelCard.from_dict(contestant.card, contestant.path)
        self.batch_size = contestant.batch_size if len(INPUTS[self.card.task]) == 1 else 1
        self.as_uint8 = takes_bytes(contestant)
        self._contestant = contestant

    @abstractmethod
    def run(self, feeds: Tensors) -> Tensors:
        """As `Backend.run`."""

    def answers(self, paths: Sequence[str]) -> Iterator[Result]:
        """As `Backend.answers`; photos of one shape run together."""
        for at in range(0, len(paths), self.batch_size):
            chunk = paths[at : at + self.batch_size]
            prepared = [resize(self.card.preprocess, read_image(path)) for path in chunk]
            found: dict[int, Result] = {}
            for positions in same_shape(prepared):
                members = [prepared[position] for position in positions]
                outputs = self.run(collate(self.card.preprocess, members, as_uint8=self.as_uint8))
                for row, position in enumerate(positions):
                    own = outputs if len(positions) == 1 else {key: out[row : row + 1] for key, out in outputs.items()}
                    found[position] = decode(self.card, prepared[position], own)
            yield from (found[position] for position in range(len(chunk)))


class OnnxRuntimePeer(Peer):
    """onnxruntime with the options it has by itself, and those of the provider that the contestant names."""

    def __init__(self, contestant: Contestant) -> None:
        """Create the session. Raises: MissingExtraError; SessionError if ONNX Runtime took another provider."""
        from landmark_onnx.runtime.providers import onnxruntime, preload

        super().__init__(contestant)
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = contestant.threads
        chain = [(contestant.provider, dict(contestant.options.get("provider_options", {})))]
        preload(ort, chain)
        self._session = ort.InferenceSession(contestant.path, options, providers=chain)
        self.providers = tuple(self._session.get_providers())
        if self.providers[0] != contestant.provider:
            raise SessionError(f"asked ONNX Runtime for {contestant.provider}, got {self.providers[0]}")

    def run(self, feeds: Tensors) -> Tensors:
        """As `Backend.run`."""
        task = self.card.task
        renamed = {theirs: feeds[ours] for ours, theirs in zip(INPUTS[task], self.card.input_names(), strict=True)}
        values = self._session.run(list(self.card.output_names()), renamed)
        return dict(zip(OUTPUTS[task], values, strict=True))


class OpenVinoPeer(Peer):
    """The openvino package itself, on the CPU, made for latency and for any image size."""

    def __init__(self, contestant: Contestant) -> None:
        """Compile the model. Raises: MissingExtraError."""
        super().__init__(contestant)
        openvino = _module("openvino", "openvino")
        # Left alone it takes bf16 where the CPU has it, whatever the file says.
        precision = {"fp32": "f32", "bf16": "bf16"}[contestant.precision]
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        settings["INFERENCE_NUM_THREADS"] = str(contestant.threads)
        self._model = openvino.Core().compile_model(contestant.path, contestant.provider, settings)
        self._request = self._model.create_infer_request()
        took = self._model.get_property("INFERENCE_PRECISION_HINT").to_string()
        if took != precision:
            raise SessionError(f"{contestant.label}: asked OpenVINO for {precision}, got {took}")
        self.providers = (f"OpenVINO {contestant.provider} {took}",)

    def run(self, feeds: Tensors) -> Tensors:
        """As `Backend.run`."""
        task = self.card.task
        values = self._request.infer(self.card.file_inputs(feeds))
        # The request's tensors are overwritten by its next run.
        return {ours: values[name].copy() for ours, name in zip(OUTPUTS[task], self.card.output_names(), strict=True)}


class Paddle(Peer):
    """Paddle Inference on the released program, with its plain kernels as the original ran, or with oneDNN."""

    def __init__(self, contestant: Contestant) -> None:
        """Create the predictor. Raises: MissingExtraError."""
        from landmark_onnx_export.paddle.runtime import inference_config, paddle_module

        super().__init__(contestant)
        config = inference_config(contestant.path, contestant.options["params"], contestant.threads)
        onednn, bf16 = (bool(contestant.options.get(name)) for name in ("onednn", "bf16"))
        config.enable_onednn() if onednn else config.disable_onednn()
        if bf16:
            config.enable_onednn_bfloat16()
        if config.onednn_enabled() != onednn:
            raise SessionError(f"{contestant.label}: Paddle here is built without oneDNN")
        self._predictor = paddle_module().inference.create_predictor(config)
        self.providers = (f"Paddle Inference {'oneDNN' if onednn else 'plain kernels'}{' bf16' if bf16 else ''}",)

    def run(self, feeds: Tensors) -> Tensors:
        """As `Backend.run`."""
        from landmark_onnx_export.paddle.runtime import predict

        names = self._contestant.options
        given = {theirs: feeds[ours] for ours, theirs in zip(INPUTS[self.card.task], names["inputs"], strict=True)}
        values = predict(self._predictor, given, names["outputs"])
        return dict(zip(OUTPUTS[self.card.task], values, strict=True))


def takes_bytes(contestant: Contestant) -> bool:
    """Whether the contestant's file normalises by itself; a program of Paddle's never does."""
    if contestant.runtime == "paddle":
        return False
    return (read_metadata(Path(contestant.path)) or {}).get("input") == "uint8"


def decode(card: ModelCard, feeds: Tensors, outputs: Tensors) -> Result:
    """The task's postprocessing of one image."""
    if card.task == "retrieval":
        return to_embedding(card.postprocess, outputs)
    if card.task == "cls":
        return to_classification(card.postprocess, outputs, TOP, {})
    return to_detections(card, feeds, outputs, {})


def _module(name: str, of_extra: str) -> Any:
    with extra(of_extra, what=name):
        return importlib.import_module(name)
