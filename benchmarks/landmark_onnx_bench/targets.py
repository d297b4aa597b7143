"""What is measured: contestants, the peers among them, and what they are asked to do."""

import dataclasses
import enum
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

if TYPE_CHECKING:  # the command line's options are declared with what is here, and its help loads no NumPy
    from landmark_onnx.precision import Precision

Runtime: TypeAlias = Literal["landmark-onnx", "onnxruntime", "openvino", "paddle"]
"""What runs the network; "landmark-onnx" is this package, on whatever provider it is asked for."""

Target: TypeAlias = Literal["model", "file"]
"""model: tensors in, tensors out. file: from the path of a photo to the answer that a user gets."""

OWN: Runtime = "landmark-onnx"


class Scenario(enum.StrEnum):
    """How queries come, as MLPerf Inference defines it.

    Source: mlcommons/inference_policies, inference_rules.adoc, section Scenarios.
    """

    SINGLE_STREAM = "single-stream"
    """The next query comes with the last answer. A query of more than one image makes it MLPerf's MultiStream."""
    OFFLINE = "offline"
    """One query holds all images."""
    SERVER = "server"
    """Queries of one image come at random, in a Poisson process."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PeerName:
    """Another runtime for the same network. wants: the file it needs that is not the model itself."""

    runtime: Runtime
    precision: "Precision" = "fp32"
    provider: str
    options: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    wants: Literal["release", "raw", ""] = ""


PEERS: Mapping[str, PeerName] = types.MappingProxyType(
    {
        "paddle": PeerName(runtime="paddle", provider="plain kernels", wants="release"),
        "paddle-onednn": PeerName(runtime="paddle", provider="oneDNN", options={"onednn": True}, wants="release"),
        "paddle-bf16": PeerName(
            runtime="paddle",
            provider="oneDNN",
            precision="bf16",
            options={"onednn": True, "bf16": True},
            wants="release",
        ),
        "openvino": PeerName(runtime="openvino", provider="CPU"),
        "openvino-bf16": PeerName(runtime="openvino", provider="CPU", precision="bf16"),
        "onnxruntime-raw": PeerName(runtime="onnxruntime", provider="CPUExecutionProvider", wants="raw"),
    }
)
"""Peers by their name on the command line. "paddle" is what the original ran on, oneDNN is Paddle's best."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One model as one runtime runs it.

    label: what tables call it. path: the ONNX file, or the program of Paddle. card: the model's, as JSON. options: of
    the runtime: "provider_options" of an execution provider; for Paddle also the program's own names of tensors.
    """

    label: str
    runtime: Runtime
    path: str
    card: Mapping[str, Any]
    provider: str
    precision: "Precision"
    threads: int
    batch_size: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, for `from_json` in the child process."""
        return {**dataclasses.asdict(self), "card": dict(self.card), "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The reverse."""
        return cls(**data)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a window holds.

    seconds: how long it goes on, unless queries says how many there are. target_qps: of scenario "server", in images
    per second; 0 lets the contest choose what all of its contestants can do.
    """

    scenario: Scenario = Scenario.SINGLE_STREAM
    seconds: float = 2.0
    queries: int = 0
    target_qps: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data, for `from_json` in the child process."""
        return {**dataclasses.asdict(self), "scenario": str(self.scenario)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The reverse."""
        return cls(**{**data, "scenario": Scenario(data["scenario"])})
