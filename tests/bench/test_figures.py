"""The scripts in benchmarks/scripts/, which are no part of the package."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import pytest

from landmark_onnx_bench.environment import machine
from landmark_onnx_bench.statistics import Window

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("made", "held", "figures", "must_hold", "collection", "class_head", "centroids", "answers_at_size"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("wanted", "measured", "holds"),
    [
        ("<= 1.00", 1.0, True),
        ("<= 1.00", 1.001, False),
        (">= 0.95", 0.96, True),
        (">= 0.95", 0.94, False),
        ("<= 1.00", None, False),
        (">= 0.95", None, False),
    ],
)
def test_a_figure_holds_or_not(scripts, wanted, measured, holds):
    from held import Figure

    assert Figure(name="x", model="m", wanted=wanted, measured=measured).holds is holds


def test_what_was_measured_stays_and_what_failed_is_tried_again(scripts, tmp_path, monkeypatch):
    import figures
    import held
    import must_hold

    calls = []

    def measure(bench, name):
        calls.append(name)
        if name == "bad" and len(calls) < 3:
            raise RuntimeError("broken")
        figure = held.Figure(name="speed", model=name, wanted="<= 1.00", measured=len(calls) / 4, by="us")
        figure = dataclasses.replace(figure, detail=f"{bench.shop.folder / 'models'}: refused")
        return [figure], [Window(images=1, seconds=1.0, latencies=(1.0,)).to_json()]

    monkeypatch.setattr(must_hold, "RUNS", {"speed": figures.Measure(measure, ("good", "bad"))})
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["must_hold.py", "-o", str(out), "--work", str(tmp_path / "work")])
    must_hold.main()
    assert calls == ["good", "bad"]
    assert "RuntimeError: broken" in (out / "must_hold.md").read_text()
    must_hold.main()
    assert calls == ["good", "bad", "bad"]
    table = (out / "must_hold.md").read_text()
    assert "- 2 of 2 hold" in table
    assert "| speed | bad | <= 1.00 | 0.75 | yes | us | models: refused |" in table
    assert "| speed | <= 1.00 | 0.25 to 0.75 | 2 of 2 |" in table
    assert [figure["holds"] for figure in json.loads((out / "must_hold.json").read_text())["figures"]] == [True] * 2
    (out / "must_hold.md").unlink()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--again", "--only"])
    must_hold.main()
    assert (out / "must_hold.md").read_text() == table
    assert calls == ["good", "bad", "bad"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "speed", "--models", "good"])
    must_hold.main()
    assert calls == ["good", "bad", "bad", "good"]
    monkeypatch.setattr(sys, "argv", [word for word in sys.argv if word != "--again"])
    must_hold.main()
    assert calls == ["good", "bad", "bad", "good"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--windows", "3"])
    must_hold.main()
    assert calls == ["good", "bad", "bad", "good", "good"], "other settings are another measurement"
    monkeypatch.setattr(must_hold, "machine", lambda: {**machine(), "cpu": "another one"})
    must_hold.main()
    assert calls == ["good", "bad", "bad", "good", "good", "good"], "so is another machine"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--models", "gut"])
    with pytest.raises(SystemExit):
        must_hold.main()


def test_the_steps_of_a_collection(scripts, tmp_path, monkeypatch):
    import collection

    lists = ["list of lines", "list of one folder", "list of a pattern"]
    arguments = ["collection.py", "--rows", "5", "--dim", "4", "--steps", *lists, "make", "update"]
    arguments += ["-o", str(tmp_path / "out" / "found")]
    monkeypatch.setattr(sys, "argv", arguments)
    collection.main()
    rows = json.loads((tmp_path / "out" / "found.json").read_text())["rows"]
    assert [(row["images"], row["step"]) for row in rows] == [(5, step) for step in (*lists, "make", "update")]
    assert rows[-2]["stored_bytes"] == rows[-1]["stored_bytes"] > 0
    assert f"    {shlex.join(['python', *arguments])}" in (tmp_path / "out" / "found.md").read_text()


@pytest.mark.slow
def test_answers_at_a_small_size(scripts, tmp_path, monkeypatch):
    import answers_at_size

    sizes = ["--images", "40", "--queries", "300", "--shown", "8"]
    monkeypatch.setattr(answers_at_size, "TOP", 20)
    monkeypatch.setattr(sys, "argv", ["answers_at_size.py", *sizes, "-o", str(tmp_path / "out")])
    answers_at_size.main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    commands = ["evaluate retrieval", "evaluate recognition"] * 2 + ["search", "search --html"] * 2
    assert [(row["command"], row["queries"]) for row in rows] == list(
        zip(commands, [75, 75, 300, 300, 2, 2, 8, 8], strict=True)
    )
    assert all(row["peak_bytes"] > 1e7 and row["processor_s"] > 0 for row in rows)


@pytest.mark.slow
def test_a_class_head_that_has_few_classes(scripts, tmp_path, monkeypatch):
    import class_head

    options = ["--classes", "40", "--views", "6", "--windows", "3", "--seconds", "0.05", "--providers", "cpu"]
    monkeypatch.setattr(sys, "argv", ["class_head.py", "-o", str(tmp_path / "out"), "--work", str(tmp_path), *options])
    monkeypatch.setenv(class_head.HOME_VARIABLE, str(tmp_path))
    class_head.main()
    figures = json.loads((tmp_path / "out" / "must_hold.json").read_text())["figures"]
    assert [figure["name"] for figure in figures] == [
        "int8 like fp32, top1",
        "int8 like fp32, top5_error",
        "int8 / fp32, batch 1",
        "peak memory, int8 / fp32, batch 4",
    ]
    assert all(figure["model"] == "cpu" and figure["measured"] > 0 for figure in figures)
    assert (tmp_path / "out" / "cpu.md").is_file()
