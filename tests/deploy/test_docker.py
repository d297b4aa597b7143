"""The Dockerfiles against the rules we keep, without an engine: their instructions are parsed here."""

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {path.name.removesuffix(".Dockerfile"): path for path in sorted((ROOT / "docker").glob("*.Dockerfile"))}
KNOWN = {
    "FROM",
    "ENV",
    "WORKDIR",
    "COPY",
    "RUN",
    "LABEL",
    "USER",
    "VOLUME",
    "EXPOSE",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
}


def instructions(text):
    """(instruction, rest) of a Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages(text):
    """The instructions of each stage, its FROM first."""
    found = []
    for instruction in instructions(text):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def context(root):
    """The files that .dockerignore lets into the build, by its own rule: the last line that matches decides."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def ignored(name):
        parts = name.split("/")
        parents = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        verdict = False
        for rule in rules:
            pattern = rule.lstrip("!")
            anywhere = pattern.removeprefix("**/")
            names = parents if anywhere == pattern else [*parents, *parts]
            if any(fnmatch.fnmatchcase(each, anywhere) and each.count("/") <= anywhere.count("/") for each in names):
                verdict = not rule.startswith("!")
        return verdict

    top = {rule[1:] for rule in rules if rule.startswith("!")}
    paths = [path for name in top for path in [root / name, *(root / name).rglob("*")] if path.is_file()]
    return sorted(name for name in (path.relative_to(root).as_posix() for path in paths) if not ignored(name))


def of(stage, *words):
    return [rest for word, rest in stage if word in words]


def problems(text, files):
    """Every rule that a Dockerfile breaks."""
    built = stages(text)
    final = built[-1]
    names = {rest.split()[-1] for stage in built for rest in of(stage, "FROM") if " AS " in rest}
    if unknown := {word for word, _ in instructions(text)} - KNOWN:
        yield f"instructions {unknown}"
    if len(built) < 2:
        yield "one stage"
    for image in (rest.split()[0] for stage in built for rest in of(stage, "FROM")):
        if not re.fullmatch(r"[\w./-]+:[\w.-]*\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image):
            yield f"base {image} has no version"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", (of(final, "USER") or [""])[-1]):
        yield "the final user is root, or has no number"
    if "paddle" in " ".join(rest for stage in built for _, rest in stage).lower():
        yield "Paddle"
    for stage in built:
        for copied in of(stage, "COPY", "ADD"):
            *sources, _ = shlex.split(copied)
            if sources[0].startswith("--from="):
                if sources[0].removeprefix("--from=") not in names:
                    yield f"{sources[0]}: no such stage"
                continue
            for source in sources:
                if not any(name == source or name.startswith(source.rstrip("/") + "/") for name in files):
                    yield f"COPY {source}: not in the context"
    if [copied for copied in of(final, "COPY", "ADD") if not copied.startswith("--from=")]:
        yield "the final stage copies from the context"
    for command in [rest for stage in built for rest in of(stage, "RUN")]:
        if re.search(r"curl|wget|https?://|--index-url|--trusted-host|sudo", command):
            yield f"RUN {command}"
        if "pip install" in command and "-r " in command and "--require-hashes" not in command:
            yield "dependencies without hashes"
    for word in ("ENTRYPOINT", "HEALTHCHECK", "VOLUME"):
        if not of(final, word):
            yield f"no {word}"


@pytest.fixture(params=FILES)
def text(request):
    return FILES[request.param].read_text(encoding="utf-8")


def variables(stage):
    return dict(word.split("=", 1) for rest in of(stage, "ENV") for word in shlex.split(rest))


def test_there_is_one_for_each_kind_of_machine():
    assert set(FILES) == {"cpu", "cuda"}


def test_no_rule_is_broken(text):
    assert list(problems(text, context(ROOT))) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("USER 10001:10001\n", "", "root"),
        ("USER 10001:10001", "USER 0:0", "root"),
        ("USER 10001:10001", "USER landmark", "root"),
        ("USER 10001:10001\n", "USER 10001:10001\nUSER root\n", "root"),
        ("FROM python:3.12-slim-bookworm\n", "FROM python\n", "base python has no version"),
        ("FROM python:3.12-slim-bookworm\n", "FROM python:latest\n", "no version"),
        (" --no-deps --only-binary", " paddlepaddle --only-binary", "Paddle"),
        ("COPY models/ models/", "COPY weights/ models/", "COPY weights/: not in the context"),
        ("COPY models/ models/", "COPY tests/ models/", "COPY tests/: not in the context"),
        ("--from=builder", "--from=build", "no such stage"),
        (" --require-hashes", "", "without hashes"),
        ("python -m pip wheel", "python -m pip wheel --index-url https://example.org", "RUN"),
        ("HEALTHCHECK", "LABEL a=b", "no HEALTHCHECK"),
        ("VOLUME", "LABEL", "no VOLUME"),
        ("ENTRYPOINT", "CMD", "no ENTRYPOINT"),
        ("ENTRYPOINT", "MAINTAINER me\nENTRYPOINT", "instructions {'MAINTAINER'}"),
        ("ENTRYPOINT", "COPY README.md /\nENTRYPOINT", "copies from the context"),
        ("ENTRYPOINT", "ADD . /\nENTRYPOINT", "instructions {'ADD'}"),
    ],
)
def test_every_rule_can_be_broken(text, old, new, problem):
    assert old in text
    found = list(problems(text.replace(old, new), context(ROOT)))
    assert any(problem in each for each in found), found


def test_a_single_stage_is_seen(text):
    assert "one stage" in problems(text[: text.index("FROM", text.index("FROM") + 1)], context(ROOT))


def test_the_environment_of_the_final_stage(text):
    found = variables(stages(text)[-1])
    assert found["ORT_DISABLE_TELEMETRY"] == "1"
    assert found["PATH"].startswith("/opt/landmark-onnx/bin:")
    assert json.loads(of(stages(text)[-1], "VOLUME")[0]) == [found["LANDMARK_ONNX_HOME"]]
    assert f"install --directory --owner 10001 --group 10001 {found['LANDMARK_ONNX_HOME']}" in text


def test_the_gpu_is_asked_for_by_one_of_them_alone():
    cpu, cuda = (variables(stages(FILES[name].read_text())[-1]) for name in ("cpu", "cuda"))
    assert cuda["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert set(cuda["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}
    assert not [name for name in cpu if name.startswith("NVIDIA")]


@pytest.mark.parametrize(
    ("name", "pinned", "runtime"), [("cpu", "serve", "onnxruntime"), ("cuda", "serve-gpu", "onnxruntime-gpu")]
)
def test_each_has_its_flavour_and_serves(name, pinned, runtime):
    text = FILES[name].read_text()
    assert f"--require-hashes -r constraints/{pinned}.txt" in text
    pins = (ROOT / "constraints" / f"{pinned}.txt").read_text()
    for each in (runtime, "faiss-cpu", "fastapi"):
        assert re.search(rf"^{each}(\[[a-z, ]+\])?==", pins, re.MULTILINE), each
    assert "paddle" not in pins
    final = stages(text)[-1]
    (port,) = of(final, "EXPOSE")
    (check,) = of(final, "HEALTHCHECK")
    interpreter, _, program = json.loads(check.partition("CMD ")[2])
    assert interpreter == "python"
    compile(program, "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{port}/healthz" in program


def test_the_context_is_small_and_whole():
    names = context(ROOT)
    assert {"pyproject.toml", "README.md", "LICENSE", "landmark_onnx/cli/__init__.py"} <= set(names)
    assert {Path(name).parts[0] for name in names if "/" in name} == {
        "benchmarks",
        "constraints",
        "export",
        "landmark_onnx",
        "models",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".onnx", ".pyc"))]


def test_ignored_files_stay_out(tmp_path):
    (tmp_path / ".dockerignore").write_text((ROOT / ".dockerignore").read_text())
    for name in (
        "models/a.toml",
        "models/x/__pycache__/a.pyc",
        "models/b.onnx",
        "tests/t.py",
        ".git/config",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert context(tmp_path) == ["README.md", "models/a.toml"]
