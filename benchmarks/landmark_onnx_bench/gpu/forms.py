"""The forms in which a GPU can run a model, and the contests that are held between them."""

import dataclasses
import types
from collections.abc import Mapping, Sequence

from landmark_onnx.precision import Precision
from landmark_onnx.runtime.gpu_options import ShapeProfile, cuda_options
from landmark_onnx.runtime.providers import CPU, CUDA
from landmark_onnx.tasks import INPUTS
from landmark_onnx_bench.peers import takes_bytes
from landmark_onnx_bench.resolve import Entrant
from landmark_onnx_bench.targets import OWN, Contestant, Runtime, Target

LARGER_BATCH = 8
"""The batch size beside 1 in the first table, and of what is measured at one size."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuForm:
    """One way to run a model. provider: where a GPU is; a rehearsal takes the CPU, without the options."""

    name: str
    provider: str = "cuda"
    precision: Precision = "fp32"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    runtime: Runtime = OWN

    def contestant(self, model: Entrant, batch_size: int, threads: int, *, rehearsal: bool) -> Contestant:
        """The model in this form."""
        provider = "cpu" if rehearsal else self.provider
        options = {} if provider == "cpu" else dict(self.options)
        made = Contestant(
            label=f"{provider} {self.name}",
            runtime=self.runtime,
            path=str(model.path),
            card=model.card.to_dict(),
            provider=provider,
            precision=self.precision,
            threads=threads,
            batch_size=batch_size,
            options={"provider_options": options},
        )
        return made if self.runtime == OWN else _plain(made, model)


def _plain(made: Contestant, model: Entrant) -> Contestant:
    """For ONNX Runtime itself: its own name of the provider, and the options that the package would choose."""
    if made.provider == "cpu":
        return dataclasses.replace(made, provider=CPU)
    profile = ShapeProfile(card=model.card, batch_size=made.batch_size, channels_last=takes_bytes(made))
    options = cuda_options(profile) | made.options["provider_options"]
    return dataclasses.replace(made, provider=CUDA, options={"provider_options": options})


ON_CPU = GpuForm(name="fp32", provider="cpu")
FP32 = GpuForm(name="fp32 without TF32", options={"use_tf32": "0"})
TF32 = GpuForm(name="fp32 with TF32", options={"use_tf32": "1"})
FP16 = GpuForm(name="fp16", precision="fp16")
UNBOUND = GpuForm(name="fp32 with TF32, no I/O binding", options={"use_tf32": "1"}, runtime="onnxruntime")
GRAPH = GpuForm(name="fp32 with TF32, CUDA graph", options={"use_tf32": "1", "enable_cuda_graph": "1"})
TENSORRT32 = GpuForm(name="TensorRT fp32", provider="tensorrt")
TENSORRT16 = GpuForm(name="TensorRT fp16", provider="tensorrt", precision="fp16")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuStep:
    """One contest, which is a record of its own. The first form is what the ratios of the others are taken of.

    targets: what is measured. agree: whether answers are compared with those of the first form at fp32. alone: the
    forms run one after another and the card's memory is watched. host: the rate of preprocessing on one core is taken
    too. quick: of the first table, with short windows. limit: seconds, after which it is given up.
    """

    title: str
    forms: tuple[GpuForm, ...]
    targets: tuple[Target, ...] = ("model",)
    agree: bool = False
    alone: bool = False
    host: bool = False
    quick: bool = False
    limit: float = 900.0


STEPS: Mapping[str, GpuStep] = types.MappingProxyType(
    {
        "parity": GpuStep(title="parity", forms=(ON_CPU, FP32, TF32, FP16), agree=True, quick=True, limit=300.0),
        "first": GpuStep(title="a larger batch", forms=(TF32, FP32, FP16), quick=True, limit=300.0),
        "memory": GpuStep(title="device memory", forms=(TF32, FP16), alone=True, quick=True),
        "feed": GpuStep(title="feeding the GPU", forms=(TF32, FP16), targets=("model", "file"), host=True),
        "binding": GpuStep(title="I/O binding", forms=(TF32, UNBOUND)),
        "graph": GpuStep(title="CUDA graph", forms=(TF32, GRAPH), agree=True),
        "throughput": GpuStep(title="throughput", forms=(TF32, FP16)),
        "tensorrt": GpuStep(title="TensorRT", forms=(TF32, FP16, TENSORRT32, TENSORRT16), agree=True, limit=3600.0),
    }
)
"""By name, cheap and telling ones first. TensorRT comes last: it may take many minutes to build an engine."""


def step_batches(name: str, model: Entrant, sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes at which a step is held. sizes: of throughput. A detector takes one image at a time."""
    if len(INPUTS[model.card.task]) > 1:
        return () if name == "first" else (1,)
    fixed = {"parity": (1,), "throughput": tuple(sizes), "first": (LARGER_BATCH,), "feed": (LARGER_BATCH,)}
    return fixed.get(name, (1, LARGER_BATCH))
