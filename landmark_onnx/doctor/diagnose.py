"""Whether models can run here: the installation's facts, and a tiny session on each execution provider."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from landmark_onnx.doctor import environment as installation
from landmark_onnx.doctor.environment import Finding, Level
from landmark_onnx.doctor.provider_trial import DRIVER, State, Trial, ask, try_provider
from landmark_onnx.errors import SessionError
from landmark_onnx.extras import versions
from landmark_onnx.runtime.providers import (
    CPU,
    CUDA,
    EXTRAS,
    OPENVINO_PACKAGE,
    SHORT_NAMES,
    TENSORRT,
    ProviderRequest,
    chosen,
    install_hint,
    takes_openvino,
)

TIMEOUT = 60.0
"""Seconds that a child process has: the first load of CUDA's libraries from a cold disk takes many."""

PACKAGES: Mapping[str, str] = {"numpy": "numpy", "cv2": "opencv-python-headless", "onnxruntime": "onnxruntime"}
"""What every model needs, the last unless OpenVINO is to run it: module -> its name for pip."""

OUTCOMES: Mapping[State, str] = {
    "runs": "runs",
    "elsewhere": "starts, but",
    "replaced": "does not start, and ONNX Runtime falls back:",
    "refused": "does not start:",
    "wrong": "answers wrongly:",
    "crashed": "crashes:",
    "hung": "hangs:",
    "absent": "not there:",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was found. asked: the provider in question. provider: what a model would run on, None if nothing."""

    asked: str
    provider: str | None
    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...]

    @property
    def runs(self) -> bool:
        """Whether models run as asked."""
        return self.provider is not None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "runs": self.runs,
            "asked": self.asked,
            "provider": self.provider,
            "findings": [finding.to_json() for finding in self.findings],
            "trials": [trial.to_json() for trial in self.trials],
        }


def examine(asked: str = "auto", *, timeout: float = TIMEOUT) -> Diagnosis:
    """Look at everything. asked: a provider, as for a model; only "auto" tries each one that is compiled in.

    timeout: seconds for each child process; every package and every provider has one of its own.
    """
    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        imports = dict(zip(PACKAGES, pool.map(lambda name: _imported(name, timeout), PACKAGES), strict=True))
    runtime = imports["onnxruntime"]
    own = versions("landmark-onnx").get("landmark-onnx", "not installed by pip")
    available = list(runtime.get("providers", ()))
    trials = _trials(asked, available, timeout)
    provider = _taken(asked, trials)
    findings = [
        *installation.system(),
        installation.package("landmark-onnx", {"version": own}),
        *(installation.package(PACKAGES[name], imports[name]) for name in ("numpy", "cv2")),
        installation.opencv_flavours(),
        _unneeded(installation.runtime_flavours(runtime), provider),
        installation.openvino(),
        *(_provider(asked, trial, provider) for trial in trials),
        *_nvidia(asked, runtime, timeout),
        *((installation.store(), installation.model_cards()) if "error" not in imports["numpy"] else ()),
        installation.export_tools(),
    ]
    needed = [name for name in PACKAGES if name != "onnxruntime" or provider != OPENVINO_PACKAGE]
    if any("error" in imports[name] for name in needed):
        provider = None
    return Diagnosis(asked=asked, provider=provider, findings=tuple(findings), trials=tuple(trials))


def _unneeded(runtime: Finding, provider: str | None) -> Finding:
    """The finding about ONNX Runtime, which is no error where OpenVINO runs the models."""
    if provider == OPENVINO_PACKAGE and runtime.level == "error":
        return dataclasses.replace(runtime, level="warning")
    return runtime


def _imported(name: str, timeout: float) -> Mapping[str, Any]:
    """What a child that imports the module says of it, or its "error"."""
    reply = ask("package", name, timeout=timeout)
    return {"error": reply.reason} if reply.answer is None else reply.answer


def _trials(asked: str, available: Sequence[str], timeout: float) -> list[Trial]:
    """One trial of what was asked for; for "auto", of all that is compiled into ONNX Runtime, or of OpenVINO alone."""
    request = ProviderRequest(name=asked)
    try:
        if takes_openvino(request):
            names = [_openvino()]
        elif asked.lower() == "auto" or not available:
            names = list(available)
        else:
            names = [chosen(request, available)]
    except SessionError as error:
        return [Trial(provider=asked, state="absent", reason=str(error))]
    return [try_provider(name, timeout=timeout) for name in names]


def _openvino() -> str:
    """Its name among the providers. Raises: SessionError if it is not installed."""
    if not versions("openvino"):
        raise SessionError(f"the openvino package is not installed; {install_hint(OPENVINO_PACKAGE)}")
    return OPENVINO_PACKAGE


def _taken(asked: str, trials: Sequence[Trial]) -> str | None:
    """The provider on which a session would run, as `landmark_onnx.runtime.session` chooses it."""
    states = {trial.provider: trial.state for trial in trials}
    if asked.lower() != "auto":
        return next((trial.provider for trial in trials if trial.state == "runs"), None)
    # The CPU takes over from a CUDA that refuses; one that dies or hangs takes the program with it.
    if states.get(CUDA) in ("crashed", "hung", "wrong"):
        return None
    return next((name for name in (CUDA, CPU, OPENVINO_PACKAGE) if states.get(name) == "runs"), None)


def _provider(asked: str, trial: Trial, taken: str | None) -> Finding:
    """What came of one provider's trial; an error if it keeps models from running as asked."""
    automatic = asked.lower() == "auto"
    level: Level = "warning"
    text, remedy = f"{OUTCOMES[trial.state]} {trial.reason}", _remedy(trial)
    if taken is None and (not automatic or trial.provider in (CUDA, CPU, OPENVINO_PACKAGE)):
        level = "error"
    if trial.state == "absent":
        text, _, remedy = trial.reason.partition("; ")
    elif trial.state == "runs":
        level, text = "ok", f"runs; a session gets {', '.join(trial.got)}; first answer after {trial.seconds:.2f} s"
    elif trial.state == "elsewhere" and automatic and trial.provider not in EXTRAS:
        level, remedy = "ok", ""  # such as Azure's, which every build has and which runs nothing of ours
    return Finding(part="providers", name=trial.provider, level=level, text=text, remedy=remedy)


def _remedy(trial: Trial) -> str:
    """What to do about a provider that does not run."""
    if trial.state == "runs":
        return ""
    if trial.provider in (CUDA, TENSORRT):
        if DRIVER in trial.reason or "driver version" in trial.reason:
            return installation.DRIVER_HINT
        if "no CUDA-capable device" in trial.reason:
            return "check CUDA_VISIBLE_DEVICES and nvidia-smi; start a container with --gpus all"
        if trial.state in ("hung", "crashed"):
            return "check the GPU with nvidia-smi, and which libraries are found (below); until then --provider cpu"
    if trial.provider == CPU:
        return "pip install --force-reinstall onnxruntime"
    return install_hint(trial.provider)


def _nvidia(asked: str, runtime: Mapping[str, Any], timeout: float) -> Iterator[Finding]:
    """The driver; where ONNX Runtime was built for CUDA, its libraries too."""
    if sys.platform != "linux":
        yield Finding(part="nvidia", name="driver", level="ok", text="looked for on Linux alone")
        return
    cuda = str(runtime.get("cuda", ""))
    wanted = {CUDA: installation.cuda_libraries(cuda), TENSORRT: installation.TENSORRT_LIBRARIES} if cuda else {}
    reply = ask("libraries", DRIVER, *(name for names in wanted.values() for name in names), timeout=timeout)
    if reply.answer is None:
        text = f"loading NVIDIA's libraries fails: {reply.reason}"
        yield Finding(part="nvidia", name="driver", level="warning", text=text, remedy=installation.DRIVER_HINT)
        return
    needs = _needs(asked)
    found = [(CUDA, installation.driver(reply.answer, DRIVER, cuda))]
    for provider, libraries in wanted.items():
        found.append((provider, installation.libraries(provider, reply.answer, libraries, install_hint(provider))))
    for provider, finding in found:
        yield finding if provider in needs else dataclasses.replace(finding, level="ok", remedy="")


def _needs(asked: str) -> tuple[str, ...]:
    """The NVIDIA providers whose libraries matter to what was asked."""
    name = SHORT_NAMES.get(asked.lower(), asked)
    return {"auto": (CUDA,), CUDA: (CUDA,), TENSORRT: (CUDA, TENSORRT)}.get(name, ())
