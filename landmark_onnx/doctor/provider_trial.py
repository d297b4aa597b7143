"""Questions for child processes: does a package load, does a provider start. What answers them may crash or hang.

See `landmark_onnx.files.child_process`.
"""

import base64
import contextlib
import ctypes
import dataclasses
import importlib
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from landmark_onnx.errors import LandmarkError
from landmark_onnx.files.child_process import ask_child, death, last_line, reply
from landmark_onnx.runtime.providers import OPENVINO_PACKAGE, ProviderRequest, onnxruntime, openvino, plan, preload

if TYPE_CHECKING:
    from landmark_onnx.types import Array

logger = logging.getLogger(__name__)

State = Literal["runs", "elsewhere", "replaced", "refused", "wrong", "crashed", "hung", "absent"]
"""How a provider's trial ended. elsewhere: it started, and another one took the Conv. replaced: ONNX Runtime fell back
without an error. absent: not compiled in."""

# onnx.helper's Conv of opset 17, ones of (1, 3, 2, 2): image (n, 3, h, w) -> sums (n, 1, h - 1, w - 1), checked. This
# package must not need onnx; tests/test_doctor.py builds it again and compares.
CONV = base64.b64decode(
    "CAg6rAEKGQoFaW1hZ2UKBG9uZXMSBHN1bXMiBENvbnYSBGNvbnYqQggBCAMIAggCEAEiMAAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/"
    "AACAPwAAgD8AAIA/AACAP0IEb25lc1oiCgVpbWFnZRIZChcIARITCgMSAW4KAggDCgMSAWgKAxIBd2IhCgRzdW1zEhkKFwgBEhMKAxIBbgoCCAEK"
    "AxIBeQoDEgF4QgQKABAR"
)

ERROR = 3
"""ONNX Runtime's log level that a trial reads."""

LOST_LIBRARY = re.compile(r"Failed to load library \S+ with error: ([^\r\n]+)")
"""What ONNX Runtime says on standard error when it then falls back without an error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """A child's answer, or why there is none. end: how the child ended. words: what else it printed."""

    answer: Mapping[str, Any] | None
    end: Literal["answered", "crashed", "hung"]
    reason: str = ""
    words: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A tiny Conv session on one provider. got: the session's providers. seconds: to create it and run it once."""

    provider: str
    state: State
    got: tuple[str, ...] = ()
    reason: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**dataclasses.asdict(self), "got": list(self.got), "seconds": round(self.seconds, 3)}


def ask(question: str, *arguments: str, timeout: float) -> Reply:
    """Put a question of `QUESTIONS` to a child process, for `timeout` seconds at most."""
    ended = ask_child("landmark_onnx.doctor.provider_trial", question, *arguments, timeout=timeout)
    if ended.answer is not None:
        return Reply(ended.answer, "answered", words=ended.words)
    if ended.code is None:
        return Reply(None, "hung", f"no answer within {timeout:g} s", ended.words)
    return Reply(None, "crashed", f"the process died ({death(ended.code)}): {last_line(ended.words)}", ended.words)


def try_provider(provider: str, *, timeout: float) -> Trial:
    """Run the Conv on `provider` in a child process."""
    reply = ask("trial", provider, timeout=timeout)
    logger.info(
        "%s: %s %s; it said: %s", provider, reply.end, reply.answer or reply.reason, reply.words.strip() or "nothing"
    )
    if reply.answer is None:
        return Trial(provider=provider, state="hung" if reply.end == "hung" else "crashed", reason=reply.reason)
    if "error" in reply.answer:
        return Trial(provider=provider, state="refused", reason=reply.answer["error"])
    found = {**reply.answer, "got": tuple(reply.answer.get("got", ()))}
    # The cause comes before what follows from it.
    if found["state"] in ("replaced", "refused") and (lost := LOST_LIBRARY.search(reply.words)):
        found["reason"] = lost[1].strip()
    return Trial(provider=provider, **found)


# The child's side.


def _trial(provider: str) -> dict[str, Any]:
    """Start a session as `landmark_onnx.runtime.session` does, run it once, and check its sums."""
    import numpy as np

    from landmark_onnx.errors import reason_of

    start_it = _on_openvino if provider == OPENVINO_PACKAGE else _on_onnx_runtime
    image = np.arange(3 * 4 * 4, dtype=np.float32).reshape(1, 3, 4, 4)
    windows = np.lib.stride_tricks.sliding_window_view(image[0].sum(axis=0), (2, 2))
    start = time.perf_counter()
    try:
        sums, got, takers = start_it(provider, image)
    except LandmarkError:
        raise
    except Exception as error:  # runtimes' exceptions have no public base class
        return {"state": "refused", "reason": f"{type(error).__name__}: {reason_of(error)}"}
    found: dict[str, Any] = {"seconds": time.perf_counter() - start, "got": got}
    if provider not in found["got"]:
        return {**found, "state": "replaced", "reason": f"ONNX Runtime took {found['got'][0]} without an error"}
    if not np.allclose(sums[0, 0], windows.sum(axis=(2, 3)), rtol=1e-2):
        return {**found, "state": "wrong", "reason": f"a Conv gave {sums.ravel()[:3].tolist()}"}
    if takers and provider not in takers:
        return {**found, "state": "elsewhere", "reason": f"it left the Conv to {', '.join(takers)}"}
    return {**found, "state": "runs"}


def _on_onnx_runtime(provider: str, image: "Array") -> "tuple[Array, list[str], list[str]]":
    """The Conv's sums, the providers of its session, and those that took nodes."""
    ort = onnxruntime()
    chain = plan(ProviderRequest(name=provider), ort.get_available_providers())
    preload(ort, chain)
    options = ort.SessionOptions()
    options.log_severity_level = ERROR
    # Providers are registered even if they then take no node: ask who took the Conv, where that can be asked.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(CONV, options, providers=chain, enable_fallback=False)
    (sums,) = session.run(None, {"image": image})
    return sums, session.get_providers(), _takers(session)


def _on_openvino(provider: str, image: "Array") -> "tuple[Array, list[str], list[str]]":
    """The same of the openvino package, on its CPU device."""
    core = openvino().Core()
    sums = core.compile_model(core.read_model(CONV), "CPU")({"image": image})["sums"]
    return sums, [provider], []


def _takers(session: Any) -> list[str]:
    """The providers that took nodes, or nothing where ONNX Runtime cannot tell."""
    with contextlib.suppress(Exception):
        return sorted({part.ep_name for part in session.get_provider_graph_assignment_info()})
    return []


def _package(name: str) -> dict[str, Any]:
    """Import a package and say what it is."""
    package = onnxruntime() if name == "onnxruntime" else importlib.import_module(name)
    found: dict[str, Any] = {"version": package.__version__}
    if name == "onnxruntime":
        found |= {"providers": package.get_available_providers(), "cuda": getattr(package, "cuda_version", "") or ""}
    return found


def _libraries(*names: str) -> dict[str, Any]:
    """Which shared libraries the loader finds, after ONNX Runtime has loaded those of NVIDIA's pip packages."""
    with contextlib.suppress(Exception):
        preload(onnxruntime(), [("CUDAExecutionProvider", {})])
    found: dict[str, str | None] = {}
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            found[name] = None
            continue
        found[name] = _mapped(name)
        if name == DRIVER:
            version = ctypes.c_int(0)
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
                found["driver"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return found


def _mapped(name: str) -> str:
    """The file that a loaded library was read from, where the system says."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            path = line.partition("/")[2]
            if Path(path).name.startswith(name):
                return f"/{path}"
    return name


DRIVER = "libcuda.so.1"
"""The part of NVIDIA's driver that no pip package brings."""

QUESTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "trial": _trial,
    "package": _package,
    "libraries": _libraries,
}


def main() -> None:
    """The child's side."""
    path, question, *arguments = sys.argv[1:]
    reply(path, lambda: QUESTIONS[question](*arguments), (LandmarkError, ImportError))


if __name__ == "__main__":
    main()
