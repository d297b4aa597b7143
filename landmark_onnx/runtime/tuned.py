"""The form of a model that `landmark-onnx tune` found fastest on this machine: kept, and never used once it is stale.

One file of each machine lies beside the model's entries of the machine cache. It says what it was measured with, all of
which must be the same when it is read, and ends with a SHA-256 of the rest.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from landmark_onnx.errors import ModelFileError, SessionError, shown
from landmark_onnx.extras import versions
from landmark_onnx.files.sealed import sealed_facts, write_sealed
from landmark_onnx.files.structure import Count, DocumentError, Sha256, Within, structure
from landmark_onnx.modelfile.metadata import require_seal
from landmark_onnx.precision import Precision, precision_file
from landmark_onnx.runtime.compiled_cache import folder_of
from landmark_onnx.runtime.cpu import available_cores, cpu_model
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.store.catalogue import exported_path

FORMAT = 1
GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver on Linux tells of each GPU."""
PACKAGES = (
    "landmark-onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
)
"""What decides how fast a model runs, as far as it is installed."""

_NAME = ".tuned-{}.json"

TunedProvider = Literal["cpu", "cuda", "tensorrt", "openvino"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TunedChoice:
    """What runs a model fastest here, of all that was tried and answers enough like fp32.

    threads: of one op, 0 for the runtime's choice. batch_size: images that run together. ratio: its time for an image
    by the default's, median; 1 if it is the default. likeness: of its answers with the default's, in the measure of the
    model's task; None if it is the default's provider and precision.
    """

    provider: TunedProvider
    precision: Precision
    threads: Annotated[int, Within(0, 4096)]
    batch_size: Annotated[int, Within(1, 4096)]
    ratio: Annotated[float, Within(0, 1e6, over=True)]
    likeness: Annotated[float, Within(-1, 1)] | None

    def request(self) -> ProviderRequest:
        """The same, as a session takes it."""
        return ProviderRequest(name=self.provider, precision=self.precision)

    def words(self) -> str:
        """The same for people.

        >>> TunedChoice(provider="cpu", precision="int8", threads=2, batch_size=8, ratio=0.5, likeness=0.99).words()
        'cpu at int8, 2 threads, batches of 8: 0.5 of the time by default, likeness to fp32 0.99'
        """
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.threads else "threads by default"
        found = f"{self.provider} at {self.precision}, {threads}, batches of {self.batch_size}"
        if self.ratio == 1:
            return f"{found}: the default"
        alike = "" if self.likeness is None else f", likeness to fp32 {self.likeness:.5g}"
        return f"{found}: {self.ratio:.3g} of the time by default{alike}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TuningGround:
    """What a choice was measured with: it holds for nothing else.

    model, running: seals of the fp32 file, and of the one that was chosen. cores: that may be kept busy. versions: of
    `PACKAGES`.
    """

    model: Sha256
    running: Sha256
    cpu: str
    features: tuple[str, ...]
    cores: Count
    gpus: tuple[str, ...]
    versions: Mapping[str, str]

    def changes(self, now: "TuningGround") -> list[str]:
        """What is different now, a phrase each."""
        names = {
            "model": "the model file",
            "running": "the file that was chosen",
            "features": "the CPU",
        }
        found = []
        for field in dataclasses.fields(self):
            before, after = getattr(self, field.name), getattr(now, field.name)
            if before != after:
                brief = field.name in names
                found.append(f"{names[field.name]} is not the same" if brief else _change(field.name, before, after))
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _TunedRecord:
    """A choice as it is kept."""

    ground: TuningGround
    choice: TunedChoice


def choice_path(model: Path) -> Path:
    """Where the choice for the fp32 file `model` on this machine is kept."""
    machine = json.dumps([*_cpu(), available_cores(), gpu_names()])
    return folder_of(model) / _NAME.format(hashlib.sha256(machine.encode()).hexdigest()[:12])


def is_choice(path: Path) -> bool:
    """Whether a file in a model's folder of the machine cache is such a record."""
    return path.match(_NAME.format("*"))


def write_choice(model: Path, choice: TunedChoice) -> Path:
    """Keep the choice for the fp32 file `model`, in place of an older one. Raises: ModelFileError, OSError."""
    path = choice_path(model)
    record = dataclasses.asdict(_TunedRecord(ground=_ground(model, choice.precision), choice=choice))
    write_sealed(path, FORMAT, record)
    return path


def read_choice(model: Path) -> TunedChoice:
    """The choice for the fp32 file `model` on this machine.

    Raises: SessionError if there is none, it is damaged, or something that it depends on has changed since.
    """
    path = choice_path(model)
    try:
        record = _record(path)
        changes = record.ground.changes(_ground(model, record.choice.precision))
    except FileNotFoundError:
        others = any(map(is_choice, path.parent.glob("*")))
        reason = "it was tuned on another machine alone" if others else "it has not been tuned on this machine"
    except OSError as error:
        reason = f"{path}: {error.strerror}"
    except DocumentError as error:
        reason = f"{path}: damaged: {error}"
    except ModelFileError as error:
        reason = str(error)
    else:
        if not changes:
            return record.choice
        reason = f"what tune chose is stale: {'; '.join(changes)}"
    name = model.stem if model == exported_path(model.stem) else str(model)
    raise SessionError(f"{name}: no choice for precision auto: {shown(reason)}; run: landmark-onnx tune {name}")


def gpu_names(folder: Path = GPUS) -> tuple[str, ...]:
    """NVIDIA's GPUs by name, sorted; none where the driver does not tell."""
    found = []
    for file in folder.glob("*/information"):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(sorted(found))


def _record(path: Path) -> _TunedRecord:
    """Raises: OSError, DocumentError."""
    with sealed_facts(path, FORMAT) as facts:
        return structure(_TunedRecord, facts)


def _ground(model: Path, precision: Precision) -> TuningGround:
    """What counts now. Raises: ModelFileError for a file that is missing or has no seal."""
    name, features = _cpu()
    return TuningGround(
        model=require_seal(model).sha256,
        running=require_seal(precision_file(model, precision)).sha256,
        cpu=name,
        features=tuple(features),
        cores=available_cores(),
        gpus=gpu_names(),
        versions=versions(*PACKAGES),
    )


def _cpu() -> tuple[str, list[str]]:
    name, features = cpu_model()
    return name, sorted(features)


def _change(name: str, before: object, after: object) -> str:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        return ", ".join(f"{key} was {before.get(key, 'not there')}, is {after.get(key, 'not there')}" for key in keys)
    return f"{name} was {before}, is {after}"
