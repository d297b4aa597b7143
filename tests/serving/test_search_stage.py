"""Searches done together are what each is alone."""

import numpy as np
import pytest

import indexed
from landmark_onnx.errors import SearchError, StepError
from landmark_onnx.results import Failure
from landmark_onnx.search import writer
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.queries import Queries
from landmark_onnx.search.rerank.chain import STEPS, parse_steps, spec
from landmark_onnx.serving.live_index import LiveIndex
from landmark_onnx.serving.query_steps import BOUNDS, query_steps, step_facts
from landmark_onnx.serving.search_stage import SearchStage, Wanted

pytest.importorskip("faiss")

ROWS = 300
STAGE = SearchStage()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("i") / "i"
    ids = [str(number) for number in range(ROWS)]
    writer.build(folder, indexed.ensemble(), indexed.batches(ids, size=100), graph=GraphOptions(effort=16))
    return LiveIndex("places", folder).current


@pytest.fixture(scope="module")
def vectors():
    return indexed.unit(indexed.vectors(24, seed=5))


def alone(snapshot, vector, top, **how):
    """What the index itself answers."""
    (answer,) = snapshot.index.answer(Queries(["q"], ["q"], vector[None]), top, **how)
    return answer.hits


@pytest.mark.parametrize(
    "steps",
    [
        (),
        ("alpha-qe:k=5",),
        ("k-reciprocal:candidates=40",),
        ("superglobal:m=30",),
        ("diffusion:k=5,truncation=50",),
        ("k-reciprocal:candidates=40", "alpha-qe:k=3", "superglobal:m=30"),
    ],
)
def test_answers_depend_on_the_query_alone(snapshot, vectors, steps):
    steps = query_steps(steps)
    items = [Wanted(snapshot, vector, 1 + 13 * at, steps=steps) for at, vector in enumerate(vectors)]
    assert len({STAGE.kind(item) for item in items}) == 1
    for item, hits in zip(items, STAGE.run_batch(items), strict=True):
        assert hits == alone(snapshot, item.vector, item.top, steps=steps)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("i") / "i"
    writer.build(folder, indexed.ensemble(), indexed.batches([str(at) for at in range(ROWS)]), compress="sq8")
    return LiveIndex("places", folder).current


@pytest.mark.parametrize("kind", ["snapshot", "compressed"])
def test_what_is_found_approximately_depends_on_the_number_so_numbers_are_not_mixed(request, kind, vectors):
    snapshot = request.getfixturevalue(kind)
    items = [Wanted(snapshot, vector, top, approximate=True) for vector in vectors for top in (3, 100)]
    kinds = {STAGE.kind(item) for item in items}
    assert len(kinds) == 2
    for kind in kinds:
        same = [item for item in items if STAGE.kind(item) == kind]
        for item, hits in zip(same, STAGE.run_batch(same), strict=True):
            assert hits == alone(snapshot, item.vector, item.top, approximate=True)


def test_only_what_can_be_searched_together_is(snapshot, vectors):
    other = LiveIndex("places", snapshot.index.folder).current
    one, *others = (
        Wanted(snapshot, vectors[0], 5),
        Wanted(other, vectors[0], 5),
        Wanted(snapshot, vectors[0], 5, approximate=True),
        Wanted(snapshot, vectors[0], 5, steps=parse_steps(["alpha-qe"])),
    )
    assert all(STAGE.kind(each) != STAGE.kind(one) for each in others)
    assert STAGE.kind(Wanted(snapshot, vectors[1], 9)) == STAGE.kind(one)
    assert STAGE.room(others[-1]) < STAGE.room(one) == 256


def test_one_that_fails_costs_the_others_nothing(snapshot, vectors):
    bad = np.full_like(vectors[0], np.nan)
    first, failed, last = STAGE.run_batch([Wanted(snapshot, each, 5) for each in (vectors[0], bad, vectors[1])])
    assert isinstance(failed, Failure)
    assert failed.kind is SearchError
    assert first == alone(snapshot, vectors[0], 5)
    assert last == alone(snapshot, vectors[1], 5)


@pytest.mark.parametrize("steps", [[], *([each["name"]] for each in step_facts())])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_an_index_of_few_rows_or_none(tmp_path, vectors, rows, steps):
    folder = tmp_path / "i"
    writer.build(folder, indexed.ensemble(), indexed.batches(["a", "b", "c"]))
    writer.remove(folder, ["a", "b", "c"][rows:])
    items = [Wanted(LiveIndex("few", folder).current, vectors[0], 20, steps=query_steps(steps))]
    (hits,) = STAGE.run_batch(items)
    assert sorted(hit.id for hit in hits) == ["a", "b"][:rows]
    assert np.isfinite([hit.score for hit in hits]).all()


# --- Steps of a request ---


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["dba"], "step 'dba': searches the whole index in itself"),
        (["alpha-qe", "diffusion:graph=database"], "step 'diffusion:graph=database': searches the whole index"),
        (["alpha-qe"] * 4, "at most 3 steps, got 4"),
        (["alpha-qe:k=101"], "k: wanted at most 100 in a request, got 101"),
        (["k-reciprocal:candidates=1001"], "candidates: wanted at most 1000"),
        (["k-reciprocal:k1=101"], "k1: wanted at most 100"),
        (["superglobal:m=1e9"], "m: wanted a whole number"),
        (["diffusion:gamma=1e30"], "gamma: wanted at most 100"),
        (["nothing"], "no step 'nothing'"),
        (["alpha-qe:alpha=nan"], "alpha: wanted at least 0"),
    ],
)
def test_a_step_that_costs_too_much_is_refused_with_the_reason(specs, said):
    with pytest.raises(StepError) as caught:
        query_steps(specs)
    assert said in str(caught.value)


def test_steps_are_those_of_the_command_line():
    specs = ["alpha-qe:k=5,alpha=2.0", "k-reciprocal:lambda=0.5"]
    assert query_steps(specs) == parse_steps(specs)


def test_the_facts_are_those_of_the_steps():
    """Each parameter with a number is there, and each default and bound means what it says."""
    for facts in step_facts():
        default = parse_steps([facts["name"]])[0]
        given = ",".join(f"{each['name']}={each['max']}" for each in facts["parameters"])
        least = ",".join(f"{each['name']}={each['min']}" for each in facts["parameters"])
        query_steps([f"{facts['name']}:{given}", f"{facts['name']}:{least}"])
        named = ",".join(f"{each['name']}={each['default']}" for each in facts["parameters"])
        assert query_steps([f"{facts['name']}:{named}"]) == (default,)
        text = spec(default).partition(":")[2].removesuffix(",graph=candidates")
        assert [each["name"] for each in facts["parameters"]] == [pair.partition("=")[0] for pair in text.split(",")]
        assert {each["kind"] for each in facts["parameters"]} <= {"int", "float"}
    assert set(STEPS) - set(BOUNDS) == {"dba"}


@pytest.mark.parametrize("facts", step_facts(), ids=lambda facts: facts["name"])
@pytest.mark.parametrize("end", ["min", "max"])
def test_at_the_bounds_scores_are_numbers(snapshot, vectors, facts, end):
    steps = query_steps([facts["name"] + ":" + ",".join(f"{each['name']}={each[end]}" for each in facts["parameters"])])
    (hits,) = STAGE.run_batch([Wanted(snapshot, vectors[0], ROWS, steps=steps)])
    assert len(hits) == ROWS
    assert np.isfinite([hit.score for hit in hits]).all()
