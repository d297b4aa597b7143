import dataclasses
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
from landmark_onnx.errors import LandmarkError, SessionError
from landmark_onnx.runtime.tuned import choice_path, read_choice
from landmark_onnx.store.catalogue import exported_path
from landmark_onnx_bench import interleaved, tuned_forms, tuning
from landmark_onnx_bench.interleaved import hopeless
from landmark_onnx_bench.resolve import entry
from landmark_onnx_bench.statistics import Window
from landmark_onnx_bench.tuned_forms import DEFAULT, precisions_here, providers_here
from landmark_onnx_bench.tuning import ROUNDS, Tuning, TuningPlan

PLAN = TuningPlan(providers=("cpu", "openvino"), precisions=("fp32", "bf16", "int8"), pause=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return entry(fakes.make_retrieval(tmp_path_factory.mktemp("tuned") / "shops.onnx"))


class Course:
    """What contestants cost and answer, in place of child processes. cost: form, target, round -> seconds."""

    def __init__(self, cost, likeness=lambda form: 1.0, fails=lambda form: ""):
        self.cost, self.likeness, self.fails = cost, likeness, fails
        self.turns = {}

    def child(self, form, paths):
        if reason := self.fails(form):
            raise SessionError(reason)
        return Scripted(self, form)


class Scripted:
    def __init__(self, course, form):
        self.course, self.contestant, self.peak_bytes = course, form, None
        self.facts = {"providers": ["CPUExecutionProvider"], "batch_size": form.batch_size}
        self.round = {"model": 0, "file": 0}

    def window(self, target, work):
        self.course.turns.setdefault(self.contestant.label, []).append(target)
        cost = self.course.cost(self.contestant, target, self.round[target])
        self.round[target] += 1
        return Window(images=1, seconds=cost, latencies=(cost,))

    def outputs(self, limit, output):
        cosine = self.course.likeness(self.contestant)
        vector = np.array([[cosine, np.sqrt(1 - cosine**2)]])
        np.savez(output, **{"0/embedding": vector})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def tune(model, course, *, plan=PLAN, cores=4):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaved, "Child", course.child)
        patch.setattr(tuning, "available_cores", lambda: cores)
        return Tuning(model, [], plan, on_stage=lambda text: None).run()


def key(form):
    """What is chosen, however it is called."""
    provider = "cpu" if form.provider == "auto" else form.provider
    return provider, form.precision, form.threads, form.batch_size


def chosen(outcome):
    choice = outcome.choice
    return choice.provider, choice.precision, choice.threads, choice.batch_size


DEFAULT_KEY = ("cpu", "fp32", 0, 4)


def drawn(seed, form, *more):
    """A number from 0 to 1 that depends on all of these."""
    return np.random.default_rng(zlib.crc32(repr((seed, key(form), *more)).encode())).random()


def test_the_fastest_form_of_all_is_found_step_by_step(model):
    def cost(form, target, number):
        provider, precision, threads, batch = key(form)
        gain = (0.8 if provider == "openvino" else 1) * {"fp32": 1, "bf16": 0.7, "int8": 0.5}[precision]
        return gain * (0.8 if batch == 8 else 1) * (0.9 if threads == 2 else 1)

    outcome = tune(model, Course(cost))
    assert chosen(outcome) == ("openvino", "int8", 2, 8)
    assert outcome.choice.ratio == pytest.approx(0.8 * 0.5 * 0.8 * 0.9)
    assert outcome.choice.likeness == 1
    assert outcome.tried[0].form.label == DEFAULT
    assert [each.verdict for each in outcome.tried][:2] == ["default", "chosen"]


@given(st.integers(0, 2**31))
@settings(max_examples=40)
def test_what_is_chosen_is_never_slower_than_the_default(model, seed):
    """The load of the machine changes from round to round, for all alike."""
    true = {}

    def cost(form, target, number):
        own = 1.0 if key(form) == DEFAULT_KEY else 0.4 + 1.6 * drawn(seed, form, target)
        true[key(form), target] = own
        return own * (1 + np.random.default_rng(number).random())

    outcome = tune(model, Course(cost))
    if chosen(outcome) == DEFAULT_KEY:
        field = [own for (form, target), own in true.items() if target == "model" and form[2:] == (0, 4)]
        files = [own for (form, target), own in true.items() if target == "file" and form != DEFAULT_KEY]
        assert min(field) > 0.97 or min(files) > 1, "what is faster is taken"
    else:
        assert true[chosen(outcome), "model"] <= 0.97
        assert true[chosen(outcome), "file"] <= 1


@pytest.mark.parametrize(("slower", "most"), [(1.0, 0.1), (1.05, 0.04), (1.2, 0.0)])
def test_noise_alone_leaves_the_default(model, slower, most):
    """Each window is off by itself, by a tenth on average and far more at times."""
    wrong = 0
    plan = dataclasses.replace(PLAN, precisions=("fp32", "int8"))
    for seed in range(60):
        random = np.random.default_rng(seed)

        def cost(form, target, number, random=random):
            return (1 if key(form) == DEFAULT_KEY else slower) * random.lognormal(0, 0.1)

        wrong += chosen(tune(model, Course(cost), plan=plan, cores=1)) != DEFAULT_KEY
    assert wrong / 60 <= most


def fast(*names):
    """A course where forms of these providers or precisions take half the time."""
    return lambda form, target, number: 0.5 if {form.provider, form.precision} & set(names) else 1.0


@given(st.floats(0, 1), st.floats(0.5, 1))
@settings(max_examples=25)
def test_nothing_below_the_floor_is_chosen_however_fast(model, floor, cosine):
    course = Course(fast("int8"), lambda form: cosine if form.precision == "int8" else 1.0)
    outcome = tune(model, course, plan=dataclasses.replace(PLAN, floor=floor))
    if abs(cosine - floor) < 1e-6:
        return
    assert (outcome.choice.precision == "int8") is (cosine > floor)
    refused = [each for each in outcome.tried if each.verdict == "refused"]
    assert all(re.fullmatch(r"cosine \S+ is below the floor of \S+", each.reason) for each in refused)
    assert bool(refused) is (cosine < floor)
    assert all(each.form.label not in course.turns for each in refused), "they have no turn"


@pytest.mark.parametrize(
    ("precision", "cosine", "taken"),
    [("int8", 0.985, False), ("int8", 0.995, True), ("bf16", 0.995, False), ("bf16", 0.9995, True)],
)
def test_the_floors_are_those_of_quantize(model, precision, cosine, taken):
    course = Course(fast(precision), lambda form: cosine if form.precision == precision else 1.0)
    assert (tune(model, course).choice.precision == precision) is taken


def test_fp32_on_another_provider_must_agree_too(model):
    course = Course(fast("openvino"), lambda form: 0.98 if form.provider == "openvino" else 1.0)
    assert chosen(tune(model, course)) == DEFAULT_KEY


def test_of_two_that_are_as_fast_the_plainer_is_taken(model):
    def cost(form, target, number):
        return 1.0 if key(form)[:2] == ("cpu", "fp32") else 0.5 * (1 + 0.02 * drawn(0, form, number))

    assert chosen(tune(model, Course(cost))) == ("openvino", "fp32", 0, 4)


def test_a_gain_of_next_to_nothing_is_none(model):
    cost = lambda form, target, number: 1.0 if key(form) == DEFAULT_KEY else 0.98  # noqa: E731
    assert chosen(tune(model, Course(cost))) == DEFAULT_KEY


def test_what_is_slower_from_file_to_answer_is_not_taken(model):
    def cost(form, target, number):
        return {"model": 0.5, "file": 1.1}[target] if form.precision == "int8" else 1.0

    outcome = tune(model, Course(cost))
    assert chosen(outcome) == DEFAULT_KEY
    assert "a last contest did not confirm it" in {each.reason for each in outcome.tried}


def test_a_leader_that_is_not_confirmed_makes_room_for_the_one_before(model):
    def cost(form, target, number):
        _, precision, _, batch = key(form)
        if precision != "int8":
            return 1.0
        return {"model": 0.3, "file": 1.5}[target] if batch == 16 else 0.6

    assert chosen(tune(model, Course(cost), cores=1))[1:] == ("int8", 0, 4)


def test_the_hopeless_have_two_turns(model):
    cost = lambda form, target, number: 3.0 if form.provider == "openvino" else 1.0 + 0.3 * (number % 2)  # noqa: E731
    course = Course(cost)
    tune(model, course)
    turns = {label: len(each) for label, each in course.turns.items()}
    assert turns["openvino fp32, threads by default, batches of 4"] == 2
    assert turns["cpu int8, threads by default, batches of 4"] == ROUNDS


def test_who_lost_its_turns_is_behind_and_not_as_fast(model):
    def cost(form, target, number):
        return {"int8": 0.3, "bf16": 0.8}.get(form.precision, 1.0)

    verdicts = {(each.form.provider, each.form.precision): each.verdict for each in tune(model, Course(cost)).tried}
    assert verdicts["openvino", "bf16"] == "behind"


def test_a_form_of_the_defaults_precision_is_not_called_the_default(model):
    cost = lambda form, target, number: 0.5 if form.batch_size == 8 else 1.0  # noqa: E731
    plan = dataclasses.replace(PLAN, precisions=("fp32",), providers=("cpu",))
    choice = tune(model, Course(cost), plan=plan, cores=1).choice
    assert choice.words() == "cpu at fp32, threads by default, batches of 8: 0.5 of the time by default"


def window(cost):
    return Window(images=1, seconds=cost, latencies=(cost,))


def test_who_is_hopeless():
    costs = {"a": [1, 1], "b": [1.2, 1.2], "c": [1.2, 1.05], "d": [9]}
    assert hopeless({name: [window(cost) for cost in each] for name, each in costs.items()}, 1.1) == {"b"}
    assert hopeless({name: [] for name in costs}, 1.1) == set()


def test_what_does_not_run_is_refused_with_its_reason(model):
    course = Course(fast("int8"), fails=lambda form: "no such thing here" if form.provider == "openvino" else "")
    outcome = tune(model, course)
    assert outcome.choice.provider == "cpu"
    told = {each.reason for each in outcome.tried if each.provider == "openvino"}
    assert told == {"no such thing here"}


def test_a_default_that_does_not_run_is_an_error(model):
    with pytest.raises(LandmarkError, match="gone"):
        tune(model, Course(fast("int8"), fails=lambda form: "gone" if form.label == DEFAULT else ""))


def test_a_detector_is_not_tried_in_batches(tmp_path):
    model = entry(fakes.make_det(tmp_path / "det.onnx", rois=0))
    course = Course(fast("int8"))
    outcome = tune(model, course, plan=dataclasses.replace(PLAN, precisions=("fp32",), providers=("cpu",)), cores=2)
    assert {each.form.batch_size for each in outcome.tried} == {1}
    assert {each.form.threads for each in outcome.tried} == {0, 1, 2}


def test_one_form_alone_is_the_default(model):
    plan = dataclasses.replace(PLAN, precisions=("fp32",), providers=("cpu",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuned_forms, "BATCH_SIZES", (4,))
        outcome = tune(model, Course(fast("int8")), plan=plan, cores=1)
    assert [each.verdict for each in outcome.tried] == ["chosen"]
    assert outcome.choice.words() == "cpu at fp32, threads by default, batches of 4: the default"


def test_what_is_here_is_asked_without_loading_it():
    found = providers_here()
    assert found[0] in ("cpu", "cuda")
    assert "openvino" in found


def test_precisions_are_those_whose_files_are_there(tmp_path):
    path = fakes.make_retrieval(tmp_path / "shops.onnx")
    model = entry(path)
    found, missing = precisions_here(model, ["cpu"])
    assert found == ("fp32",)
    (text,) = missing
    assert f"make it once: landmark-onnx quantize {path} --precision int8 --calibrate" in text
    assert len(precisions_here(model, ["cuda", "cpu"])[1]) == 2
    fakes.make_reduced(path)
    assert precisions_here(model, ["cpu", "openvino"]) == (("fp32", "bf16", "int8"), [])
    fakes.make_retrieval(path, seed=4)
    assert "made from another model" in precisions_here(model, ["cpu"])[1][0]


@pytest.fixture
def quick(monkeypatch):
    """One provider, few batch sizes and windows that take no time: all else is real."""
    monkeypatch.setattr(tuned_forms, "BATCH_SIZES", (4, 8))
    monkeypatch.setattr(tuning, "WINDOWS", 20_000)
    monkeypatch.setattr(tuning, "ROUNDS", 3)
    monkeypatch.setattr(tuning, "available_cores", lambda: 1)
    monkeypatch.setattr("landmark_onnx_bench.tuned_forms.providers_here", lambda: ("cpu",))


def test_the_command_tries_and_keeps_and_other_commands_take_it(quick, run, tmp_path, monkeypatch):
    path = fakes.make_retrieval(exported_path("shops"))
    done = run("tune", "shops", "--format", "json")
    assert done.code == 0, done.err
    assert "make it once: landmark-onnx quantize shops --precision int8" in done.err
    assert [row["batch_size"] for row in done.json] == [4, 8]
    for row in done.json:
        assert set(row) == {
            *("model", "provider", "precision", "threads", "batch_size"),
            *("ms", "ratio", "likeness", "verdict", "reason"),
        }
        assert row["ms"] > 0
    (taken,) = [row for row in done.json if row["verdict"] == "chosen"]
    choice = read_choice(path)
    assert (choice.provider, choice.precision, choice.batch_size) == ("cpu", "fp32", taken["batch_size"])
    assert str(choice_path(path)) in done.err
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(photo_bytes())
    asked = run("retrieval", "a.png", "b.png", "-m", "shops", "--precision", "auto")
    assert asked.code == 0, asked.err
    assert f"shops: --precision auto took {choice.words()}" in asked.err
    assert run("verify", "shops", "--precision", "auto").code == 0


def photo_bytes():
    import cv2

    return cv2.imencode(".png", fakes.photo())[1].tobytes()


@pytest.mark.parametrize("command", [("cls",), ("retrieval",), ("verify",), ("models", "verify")])
def test_precision_auto_without_a_choice_names_the_command(command, run, tmp_path):
    (tmp_path / "a.png").write_bytes(photo_bytes())
    task = "cls" if "cls" in command else "retrieval"
    {"cls": fakes.make_cls, "retrieval": fakes.make_retrieval}[task](exported_path("shops"))
    asked = [tmp_path / "a.png", tmp_path / "a.png", "-m"] if command[-1] == task else []
    done = run(*command, *asked, "shops", "--precision", "auto")
    assert done.code == 1
    assert "shops: no choice for precision auto: it has not been tuned on this machine" in done.err
    assert "run: landmark-onnx tune shops" in done.err


@pytest.mark.parametrize("more", [("--provider", "cpu"), ("--device-id", "0"), ("--provider-option", "a=b")])
def test_precision_auto_takes_no_other_provider(more, run, tmp_path):
    done = run("verify", "shops", "--precision", "auto", *more)
    assert done.code == 2
    assert "--provider and its options" in " ".join(done.err.replace("│", "").split())


def test_a_bundle_is_for_other_machines(run, tmp_path):
    fakes.make_retrieval(exported_path("shops"))
    done = run("bundle", "shops", "-o", tmp_path / "bundle", "--precision", "auto")
    assert done.code == 2
    assert "of this machine alone" in " ".join(done.err.replace("│", "").split())


def test_a_file_of_reduced_precision_is_not_tuned_by_itself(run):
    path = fakes.make_reduced(fakes.make_retrieval(exported_path("shops")))
    done = run("tune", path)
    assert done.code == 1
    assert f"{path}: wanted the fp32 file" in done.err


def test_a_table_has_a_line_for_each_form(quick, run, monkeypatch):
    fakes.make_retrieval(exported_path("shops"))
    monkeypatch.setattr(interleaved, "Child", Course(lambda form, *_: form.batch_size).child)
    done = run("tune", "shops", "--format", "table", "-q")
    assert done.code == 0, done.err
    head, *rows = done.out.splitlines()
    assert head.split()[:5] == ["provider", "precision", "threads", "batch", "ms"]
    assert len(rows) == 2
    assert "slower" in rows[1]
    assert json.loads(choice_path(exported_path("shops")).read_text())["choice"]["batch_size"] == 4


@pytest.mark.parametrize(("load", "told"), [(9.5, True), (0.1, False), (None, False)])
def test_a_busy_machine_is_told_of(quick, run, monkeypatch, load, told):
    fakes.make_retrieval(exported_path("shops"))
    monkeypatch.setattr(interleaved, "Child", Course(lambda form, *_: form.batch_size).child)
    monkeypatch.setattr("landmark_onnx_bench.environment.load_average", lambda: load)
    monkeypatch.setattr("landmark_onnx.runtime.cpu.available_cores", lambda: 2)
    done = run("tune", "shops", "--format", "csv")
    assert done.code == 0, done.err
    assert ("this machine is busy (load 9.5, 2 cores)" in done.err) is told
