"""What may run a model here: the default, and each provider, precision, batch size and thread count beside it."""

import dataclasses
from collections.abc import Iterator, Sequence

from landmark_onnx.doctor.provider_trial import ask
from landmark_onnx.errors import LandmarkError, ModelFileError
from landmark_onnx.inference.batching import BATCH_SIZE
from landmark_onnx.precision import Precision
from landmark_onnx.runtime.providers import SHORT_NAMES, ProviderRequest, chosen
from landmark_onnx.store.catalogue import running_file
from landmark_onnx.tasks import INPUTS
from landmark_onnx_bench.resolve import Entrant, own
from landmark_onnx_bench.targets import Contestant

DEFAULT = "default"
"""The label of what commands take unless they are told otherwise."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
"""The plainest first."""
HAS_BF16 = ("tensorrt", "openvino")
ON_GPU = ("cuda", "tensorrt")

BATCH_SIZES = (1, 2, 4, 8, 16)
PATIENCE = 60.0
"""Seconds that a runtime has to say what it is."""


def providers_here() -> tuple[str, ...]:
    """Short names of the providers that are installed, first the one that "auto" takes.

    Asked in child processes: what measures loads no runtime itself. Raises: LandmarkError if there is none.
    """
    available = (ask("package", "onnxruntime", timeout=PATIENCE).answer or {}).get("providers", ())
    found = [short for short, name in SHORT_NAMES.items() if name in available]
    if "version" in (ask("package", "openvino", timeout=PATIENCE).answer or {}):
        found.append("openvino")
    if not found:
        raise LandmarkError("no runtime is installed that can be tried; run: landmark-onnx doctor")
    first = short_name(chosen(ProviderRequest(), available)) if available else "openvino"
    return (first, *(name for name in found if name != first))


def short_name(provider: str) -> str:
    """The name of a provider as users give it, of the one that a session says.

    >>> short_name("CPUExecutionProvider")
    'cpu'
    """
    return next((short for short, name in SHORT_NAMES.items() if name == provider), provider)


def precisions_here(model: Entrant, providers: Sequence[str]) -> tuple[tuple[Precision, ...], list[str]]:
    """The precisions that some provider may run the model at, and what is missing for others, with the remedy."""
    found: list[Precision] = []
    missing = []
    for precision in PRECISIONS:
        if precision == "bf16" and not set(providers) & set(HAS_BF16):
            continue
        try:
            running_file(model.path, precision)
        except ModelFileError as error:
            if precision != "fp16" or set(providers) & set(ON_GPU):  # elsewhere it is seldom worth its file
                missing.append(f"{precision} is not tried: {error}")
            continue
        found.append(precision)
    return tuple(found), missing


def default_form(model: Entrant) -> Contestant:
    """What runs the model unless it is told otherwise."""
    batch_size = BATCH_SIZE if len(INPUTS[model.card.task]) == 1 else 1
    (found,) = own(model, ["auto"], ["fp32"], threads=0, batch_size=batch_size)
    return dataclasses.replace(found, label=DEFAULT)


def forms(model: Entrant, providers: Sequence[str], precisions: Sequence[Precision]) -> Iterator[Contestant]:
    """Each provider at each precision, in the default's batches and threads, but for the default itself."""
    batch_size = default_form(model).batch_size
    for each in own(model, providers, precisions, threads=0, batch_size=batch_size):
        if each.precision == "bf16" and each.provider not in HAS_BF16:
            continue
        if (each.provider, each.precision) != (providers[0], "fp32"):
            yield labelled(each)


def batch_forms(form: Contestant) -> Iterator[Contestant]:
    """The same in other batches."""
    for size in BATCH_SIZES:
        if size != form.batch_size:
            yield labelled(dataclasses.replace(form, batch_size=size))


def thread_forms(form: Contestant, cores: int) -> Iterator[Contestant]:
    """The same with one thread, half as many as there are cores, and as many; a GPU has no use for them."""
    if form.provider in ON_GPU or cores < 2:
        return
    for threads in sorted({1, cores // 2, cores}):
        yield labelled(dataclasses.replace(form, threads=threads))


def labelled(form: Contestant) -> Contestant:
    """The same with a label that says all that is chosen of it."""
    threads = f"{form.threads} threads" if form.threads else "threads by default"
    label = f"{form.provider} {form.precision}, {threads}, batches of {form.batch_size}"
    return dataclasses.replace(form, label=label)


def plainness(form: Contestant) -> tuple[int, int, int, int]:
    """What is least comes first where nothing else decides: fp32, auto's provider, its threads, batches near 4."""
    return (
        PRECISIONS.index(form.precision),
        form.threads != 0,
        abs(form.batch_size.bit_length() - BATCH_SIZE.bit_length()),
        form.batch_size,
    )
