import codecs
import contextlib
import csv
import io
import itertools
import pickle
import pickletools
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.errors import TableError
from landmark_onnx.evaluation import csv_rows as tables
from landmark_onnx.evaluation import gap as recognition
from landmark_onnx.evaluation import ground_truth as ground_truth_module
from landmark_onnx.evaluation import mean_ap as retrieval
from landmark_onnx.evaluation import revisited
from landmark_onnx.evaluation.csv_rows import read_rows
from landmark_onnx.evaluation.ground_truth import GroundTruth, Query, read_ground_truth
from landmark_onnx.evaluation.report import mean
from landmark_onnx.evaluation.solutions import Prediction, Truth, read_images, read_predictions, read_solution

IDS = [f"{number:016x}" for number in range(1, 20)]


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- mAP@k ---


def published(solution):
    """Cases of tensorflow/models, research/delf, google_landmarks_dataset/metrics_test.py, with shorter ids."""
    return {name: Truth("Public", frozenset(right)) for name, right in solution.items()}


RETRIEVAL = published({"q1": ["a", "b"], "q2": ["a"], "q3": ["c", "d", "e"], "q4": ["c"]})
RETRIEVED = {"q2": ["z", "a"], "q3": ["d"], "q4": ["c", "d"]}


@pytest.mark.parametrize(("top", "wanted"), [(100, 0.458333), (1, 0.5)])
def test_map_of_the_published_case(tmp_path, top, wanted):
    file = write(tmp_path / "s.csv", "id,images\n" + "".join(f"{q},{' '.join(i)}\n" for q, i in RETRIEVED.items()))
    report = retrieval.evaluate_retrieval(file, RETRIEVAL, top, "solution")
    assert report.rows[-1][f"map@{top}"] == pytest.approx(wanted, abs=1e-6)
    assert (report.answered, report.wanted) == (3, 4)


def test_precisions_of_the_published_case():
    answers = [RETRIEVED.get(query, []) for query in RETRIEVAL]
    rights = [truth.relevant for truth in RETRIEVAL.values()]
    got = [mean(retrieval.precision(a, r, cut) for a, r in zip(answers, rights, strict=True)) for cut in (1, 2)]
    assert got == pytest.approx([0.5, 0.375])


@pytest.mark.parametrize(
    ("answers", "right", "top", "wanted"),
    [
        ("a", "a", 100, 1),
        ("xa", "a", 100, 1 / 2),
        ("xaxb", "ab", 100, (1 / 2 + 2 / 4) / 2),
        ("aab", "ab", 100, (1 + 2 / 3) / 2),  # a repeated one keeps its place
        ("ab", "abcd", 2, 1),  # no more than `top` can be found
        ("xab", "ab", 2, (1 / 2) / 2),
        ("", "a", 100, 0),
        ("xyz", "a", 100, 0),
    ],
)
def test_average_precision_by_hand(answers, right, top, wanted):
    assert retrieval.average_precision(list(answers), set(right), top) == pytest.approx(wanted)


@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_average_precision_is_scikit_learns_where_all_is_ranked(hits):
    from sklearn.metrics import average_precision_score

    answers = list(range(len(hits)))
    right = {answer for answer in answers if hits[answer]}
    wanted = average_precision_score(hits, -np.arange(len(hits)))
    assert retrieval.average_precision(answers, right, len(hits)) == pytest.approx(wanted)


def ap_by_the_definition(answers, right, top):
    total = 0
    for place in range(1, min(len(answers), top) + 1):
        if answers[place - 1] in right and answers[place - 1] not in answers[: place - 1]:
            total += len({answer for answer in answers[:place] if answer in right}) / place
    return total / min(len(right), top)


@given(
    st.lists(st.integers(0, 12), max_size=20),
    st.sets(st.integers(0, 12), min_size=1),
    st.integers(1, 25),
)
def test_average_precision_is_its_definition(answers, right, top):
    got = retrieval.average_precision(answers, right, top)
    assert got == pytest.approx(ap_by_the_definition(answers, right, top))
    assert 0 <= got <= 1


@given(st.permutations(range(10)), st.sets(st.integers(0, 9), min_size=1), st.integers(0, 8))
def test_moving_a_right_answer_up_never_harms(answers, right, at):
    before = retrieval.average_precision(answers, right)
    if answers[at + 1] in right and answers[at] not in right:
        answers[at], answers[at + 1] = answers[at + 1], answers[at]
        assert retrieval.average_precision(answers, right) > before


@given(st.permutations(range(10)), st.sets(st.integers(0, 9), min_size=1), st.permutations(range(10)))
def test_names_do_not_matter(answers, right, names):
    renamed = retrieval.average_precision([names[a] for a in answers], {names[r] for r in right}, 5)
    assert renamed == retrieval.average_precision(answers, right, 5)


# --- GAP ---

RECOGNITION = published({"1": ["0", "12"], "2": ["100", "200", "300"], "3": ["1"], "4": [], "5": []})
PREDICTIONS = {"2": Prediction("0", 0.01), "3": Prediction("1", 10.0), "4": Prediction("150", 15.0)}


def test_gap_of_the_published_case():
    assert recognition.global_average_precision(PREDICTIONS, RECOGNITION) == pytest.approx(0.166667, abs=1e-6)
    assert recognition.accuracy(PREDICTIONS, RECOGNITION) == pytest.approx(1 / 3)


def test_gap_by_hand():
    """Four images, three with landmarks; in order of score right, wrong (no landmark there), right: (1 + 2/3) / 3."""
    solution = published({"a": ["7"], "b": [], "c": ["8"], "d": ["9"]})
    predictions = {"c": Prediction("8", 0.1), "a": Prediction("7", 0.9), "b": Prediction("7", 0.5)}
    assert recognition.global_average_precision(predictions, solution) == pytest.approx((1 + 2 / 3) / 3)


def test_of_equal_scores_the_lower_id_is_first():
    solution = published({"a": ["1"], "b": ["1"]})
    right_first = {"a": Prediction("1", 1.0), "b": Prediction("2", 1.0)}
    right_last = {"a": Prediction("2", 1.0), "b": Prediction("1", 1.0)}
    assert recognition.global_average_precision(right_first, solution) == 1 / 2
    assert recognition.global_average_precision(right_last, solution) == 1 / 4


def gap_by_the_definition(predictions, solution):
    rows = sorted((-prediction.score, image, prediction.landmark) for image, prediction in predictions.items())
    right = [landmark in solution[image].relevant for _, image, landmark in rows]
    total = sum(sum(right[: at + 1]) / (at + 1) for at in range(len(right)) if right[at])
    return total / sum(1 for truth in solution.values() if truth.relevant)


MARKS = st.sampled_from("abc")
SOLUTIONS = st.dictionaries(st.sampled_from("123456789"), st.sets(MARKS), min_size=1).filter(
    lambda found: any(found.values())
)


@given(SOLUTIONS, st.dictionaries(st.sampled_from("123456789"), st.tuples(MARKS, st.integers(0, 3))), st.randoms())
def test_gap_is_its_definition(right, said, shuffler):
    solution = published(right)
    predictions = {image: Prediction(mark, float(score)) for image, (mark, score) in said.items() if image in solution}
    got = recognition.global_average_precision(predictions, solution)
    assert got == pytest.approx(gap_by_the_definition(predictions, solution))
    assert 0 <= got <= 1
    shuffled = list(predictions.items())
    shuffler.shuffle(shuffled)
    assert recognition.global_average_precision(dict(shuffled), solution) == got
    grown = {
        image: Prediction(prediction.landmark, 3 * prediction.score + 7) for image, prediction in predictions.items()
    }
    assert recognition.global_average_precision(grown, solution) == got


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(any))
def test_gap_is_scikit_learns_average_precision_where_each_right_image_is_guessed(right):
    from sklearn.metrics import average_precision_score

    solution = {f"{at:02}": Truth("Public", frozenset({"x"} if hit else ())) for at, hit in enumerate(right)}
    predictions = {image: Prediction("x", -float(image)) for image in solution}
    wanted = average_precision_score(right, -np.arange(len(right)))
    assert recognition.global_average_precision(predictions, solution) == pytest.approx(wanted)


def test_a_surer_wrong_guess_never_helps():
    solution = published({"a": ["1"], "b": ["1"], "c": []})
    predictions = {"a": Prediction("1", 0.9), "b": Prediction("1", 0.5)}
    scores = [
        recognition.global_average_precision(predictions | {"c": Prediction("1", score)}, solution)
        for score in (0.1, 0.7, 2)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == recognition.global_average_precision(predictions, solution)


# --- The revisited protocols ---


def toolbox_ap(ranking, right, junk):
    """The protocol's definition: drop junk, then trapezoids over the precision-recall points, one hit at a time."""
    kept = [position for position in ranking if position not in junk]
    area = hits = 0
    for place, position in enumerate(kept):
        if position in right:
            before = 1 if place == 0 else hits / place
            hits += 1
            area += (before + hits / (place + 1)) / 2 / len(right)
    return area


@given(st.permutations(range(12)), st.lists(st.sampled_from(["right", "junk", "wrong"]), min_size=12, max_size=12))
def test_revisited_average_precision_is_its_definition(ranking, kinds):
    right = {at for at, kind in enumerate(kinds) if kind == "right"}
    junk = {at for at, kind in enumerate(kinds) if kind == "junk"}
    if right:
        found = revisited.places(ranking, right, junk)
        got = revisited.average_precision(found, len(right))
        assert got == pytest.approx(toolbox_ap(ranking, right, junk))
        assert 0 < got <= 1


def test_revisited_by_hand():
    """Ranking: right, wrong, junk, right. Without junk the right ones are at 0 and 2 (from 0).

    Trapezoids: (1 + 1/1) / 2 and (1/2 + 2/3) / 2, each times 1/2.
    """
    found = revisited.places([5, 6, 7, 8], {5, 8}, {7})
    assert found == [0, 2]
    assert revisited.average_precision(found, 2) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert revisited.precision(found, 1) == 1
    assert revisited.precision(found, 2) == 1 / 2
    # The last right one is third: ten are cut to three.
    assert revisited.precision(found, 10) == 2 / 3
    assert revisited.precision([], 10) == 0


@given(st.permutations(range(9)), st.integers(0, 8), st.sets(st.integers(0, 8), min_size=1))
def test_where_junk_is_does_not_matter(ranking, junk, right):
    right = right - {junk}
    moved = [position for position in ranking if position != junk]
    assert revisited.places(ranking, right, {junk}) == revisited.places(moved, right, {junk})


def test_a_perfect_ranking_is_one_in_each_protocol(tmp_path):
    truth = ground_truth()
    file = write(tmp_path / "r.csv", "id,images\nq0,i0 i1 i2 i3 i4 i5\nq1,i3 i4 i0 i1 i2 i5\n")
    report = revisited.evaluate_revisited(file, truth, "gnd")
    rows = {row["protocol"]: row for row in report.rows}
    # q0: easy 0, hard 1, junk 2; q1: easy 3, 4 and nothing hard, so Hard is over q0 alone.
    assert {name: row["queries"] for name, row in rows.items()} == {"Easy": 2, "Medium": 2, "Hard": 1}
    assert all(row[key] == 1 for row in rows.values() for key in ("map", "mp@1", "mp@5", "mp@10"))


def test_each_protocol_has_its_own_junk(tmp_path):
    file = write(tmp_path / "r.csv", "id,images\nq0,i1 i2 i5 i0\n")
    truth = GroundTruth(ground_truth().images, ground_truth().queries[:1])
    rows = {row["protocol"]: row["map"] for row in revisited.evaluate_revisited(file, truth, "gnd").rows}
    # Easy: i1 (hard) and i2 (junk) do not count: wrong, right. Medium: right, wrong, right. Hard: i0 does not count.
    assert rows["Easy"] == pytest.approx((0 + 1 / 2) / 2)
    assert rows["Medium"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert rows["Hard"] == 1


def ground_truth():
    def query(name, easy, hard, junk):
        return Query(name, (0.0, 0.0, 10.0, 10.0), frozenset(easy), frozenset(hard), frozenset(junk))

    return GroundTruth(tuple(f"i{at}" for at in range(6)), (query("q0", [0], [1], [2]), query("q1", [3, 4], [], [])))


def test_names_that_do_not_match_are_refused_with_counts(tmp_path):
    file = write(tmp_path / "r.csv", "id,images\nq0,i0 i1.jpg i9\n")
    with pytest.raises(TableError, match=r"2 of 3 images are not among the 6 of gnd, such as 'i1.jpg'"):
        revisited.evaluate_revisited(file, ground_truth(), "gnd")
    file = write(tmp_path / "r.csv", "id,images\nq0,i0\nq7,i0\n")
    with pytest.raises(TableError, match=r"1 of 2 queries are not among the 2 of gnd, such as 'q7'"):
        revisited.evaluate_revisited(file, ground_truth(), "gnd")


# --- Ground truth files ---


def toolbox_dictionary(numbers=list):
    rows = [
        {"bbx": numbers([136.5, 34.1, 648.5, 955.7]), "easy": numbers([0]), "hard": numbers([1]), "junk": numbers([2])},
        {"bbx": numbers([1.0, 2.0, 3.0, 4.0]), "easy": numbers([3, 4]), "hard": numbers([]), "junk": numbers([])},
    ]
    return {"imlist": [f"i{at}" for at in range(6)], "qimlist": ["q0", "q1"], "gnd": rows}


def int_array(values):
    return np.array(values, np.int64 if all(isinstance(value, int) for value in values) else np.float64)


def scalars(values):
    return [np.int32(value) if isinstance(value, int) else np.float32(value) for value in values]


@pytest.mark.parametrize("numbers", [list, tuple, int_array, scalars])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ground_truth_is_read_from_every_protocol(tmp_path, numbers, protocol):
    path = write(tmp_path / "gnd.pkl", pickle.dumps(toolbox_dictionary(numbers), protocol))
    truth = read_ground_truth(path)
    assert truth.images == tuple(f"i{at}" for at in range(6))
    assert [query.name for query in truth.queries] == ["q0", "q1"]
    assert truth.queries[0].box == pytest.approx((136.5, 34.1, 648.5, 955.7), abs=1e-4)
    assert [query.easy for query in truth.queries] == [{0}, {3, 4}]
    assert [query.hard for query in truth.queries] == [{1}, set()]


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol):
    mark = tmp_path / "ran"
    for call in (
        (exec, (f"open({str(mark)!r}, 'w')",)),
        (eval, (f"open({str(mark)!r}, 'w')",)),
        (__import__("os").system, (f"touch {mark}",)),
        (__import__("subprocess").check_call, (["touch", str(mark)],)),
        (getattr, ("x", "format")),
        (bytes, (1 << 40,)),
        (np.memmap, (str(mark),)),
        (io.open, (str(mark), "w")),
        (bytearray, (1 << 40,)),
        (codecs.encode, ("x", "rot13")),
    ):
        path = write(tmp_path / "gnd.pkl", pickle.dumps(toolbox_dictionary() | {"gnd": Hostile(*call)}, protocol))
        with pytest.raises(TableError, match=r"refused: ") as raised:
            read_ground_truth(path)
        assert "\n" not in str(raised.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"imlist",
        b"\x80\x04",
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # bytes that are not there
        b"cnumpy\nndarray\n((I9999999999\nltR.",
        pickle.dumps([1, 2]),
        pickle.dumps(np.zeros(3)),
        pickle.dumps(np.array([{"a": 1}], object)),
        b"Pnothing\n.",
    ],
)
def test_what_is_no_ground_truth_is_refused_in_one_line(tmp_path, data):
    with pytest.raises(TableError) as raised:
        read_ground_truth(write(tmp_path / "gnd.pkl", data))
    assert "gnd.pkl" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gnd": []}, "2 queries, but 0 rows"),
        ({"imlist": "i0"}, "imlist is not a list of str"),
        ({"imlist": [0, 1]}, "imlist is not a list of str"),
        ({"qimlist": ["q0", "q0"]}, "qimlist has a name twice"),
        ({"imlist": ["i0"]}, "hard has a position that is not among the 1 images"),
        ({"gnd": [{}, {}]}, "query q0: easy is not a list of numbers"),
        ({"gnd": [{"easy": [True], "hard": [], "junk": []}] * 2}, "easy is not a list of numbers"),
        ({"gnd": [{"easy": [0], "hard": [], "junk": [], "bbx": [1, 2]}] * 2}, "bbx has 2 values, not 4"),
        ({"gnd": [{"easy": [1 << 60], "hard": [], "junk": [], "bbx": [1, 2, 3, 4]}] * 2}, "easy is not a list of"),
        ({"gnd": [{"easy": [], "hard": [], "junk": [], "bbx": [1, 2, 3, 10**400]}] * 2}, "bbx is not a list of"),
        ({"gnd": [{"easy": [], "hard": [], "junk": [], "bbx": [1, 2, 3, float("nan")]}] * 2}, "bbx is not a list of"),
        ({"gnd": [{"easy": np.zeros((0, 0)), "hard": np.array(1)}] * 2}, "easy is not a list of numbers"),
    ],
)
def test_ground_truth_that_lacks_something_says_what(tmp_path, change, told):
    path = write(tmp_path / "gnd.pkl", pickle.dumps(toolbox_dictionary() | change))
    with pytest.raises(TableError, match=r"gnd\.pkl: ") as raised:
        read_ground_truth(path)
    assert told in str(raised.value)


def test_one_list_of_all_queries_is_not_counted_out(tmp_path, monkeypatch):
    monkeypatch.setattr(ground_truth_module, "MAX_POSITIONS", 3)
    data = pickle.dumps(toolbox_dictionary())
    with pytest.raises(TableError, match="more than 3 positions"):
        read_ground_truth(write(tmp_path / "gnd.pkl", data))


def test_damaged_pickles_are_errors_of_ours(tmp_path):
    data = pickle.dumps(toolbox_dictionary(int_array), 2)
    rng = random.Random(0)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path = write(tmp_path / "gnd.pkl", bytes(damaged))
        with contextlib.suppress(TableError):
            read_ground_truth(path)
    assert sum(1 for _ in pickletools.genops(data)) > 50


# --- CSV files ---

SOLUTION = "id,images,Usage\nq1,a b,Public\nq2,c,Private\nq3,None,Ignored\n"


@pytest.mark.parametrize(
    "text",
    [
        SOLUTION,
        SOLUTION.replace("\n", "\r\n"),
        "\ufeff" + SOLUTION,
        SOLUTION.rstrip("\n"),
        SOLUTION.replace("\n", "\n\n"),
        SOLUTION.replace("a b", '"a b"').replace("q1", '"q1"'),
        SOLUTION.replace("a b", '" a  b "'),
        SOLUTION.replace("a b", '"a\r\nb"'),
        SOLUTION.encode("utf-16"),
        ("\ufeff" + SOLUTION).encode("utf-16-be"),
        "note,Usage,IMAGES, Id\nx,Public,a b,q1\n,Private,c,q2\n,Ignored,,q3\n",
    ],
)
def test_messy_files_say_the_same(tmp_path, text):
    solution = read_solution(write(tmp_path / "s.csv", text), "images")
    assert solution == {
        "q1": Truth("Public", frozenset("ab")),
        "q2": Truth("Private", frozenset("c")),
        "q3": Truth("Ignored", frozenset()),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column id, images, Usage; its first line has: no header"),
        ("id,images\nq1,a\n", "no column Usage; its first line has: id, images"),
        ("q1,a,Public\n", "no column id, images, Usage"),
        ("id,images,Usage\nq1,a\n", "line 2: wanted 3 fields, as its first line has, got 2"),
        ("id,images,Usage\nq1,a,Public\n\nq2,b,Public,x\n", "line 4: wanted 3 fields, as its first line has, got 4"),
        ("id,images,Usage\nq1,a,Public,\n", "line 2: wanted 3 fields, as its first line has, got 4"),
        ("id,images,Usage\nq1,a,Test\n", "line 2: q1: wanted a Usage of Public, Private, Ignored, got 'Test'"),
        (SOLUTION + "q1,a,Public\n", "line 5: q1 is there twice"),
        ("id,images,Usage\nq1,None,Public\n", "q1 is Public but has no image"),
        ("id,images,Usage\nq1,None,Ignored\n", "no line is Public or Private"),
        ('id,images,Usage\nq1,"a\n', "line 2: a quote that opens and does not close"),
        (b"id,images,Usage\nq1,\xff,Public\n", "not UTF-8 text"),
        (b'id,images,Usage\nq\x001,"a"b,Public\n', "line 2"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, told):
    with pytest.raises(TableError) as raised:
        read_solution(write(tmp_path / "s.csv", text), "images")
    assert told in str(raised.value)
    assert "s.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TableError, match=r"none.csv: No such file"):
        read_solution(tmp_path / "none.csv", "images")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("q1,5", "wanted one landmark and its score, or nothing; got 1 words"),
        ("q1,5 0.5 6 0.4", "got 4 words"),
        ("q1,5 high", "wanted a number as the score, got 'high'"),
        ("q1,5 nan", "wanted a number as the score, got 'nan'"),
        ("q1,5 1\nq1,5 1", "line 3: q1 is there twice"),
    ],
)
def test_bad_guesses_are_refused(tmp_path, row, told):
    with pytest.raises(TableError) as raised:
        list(read_predictions(write(tmp_path / "s.csv", f"id,landmarks\n{row}\n")))
    assert told in str(raised.value)


def test_fields_longer_than_the_csv_modules_limit_are_read(tmp_path):
    """The images of one landmark, in train_clean.csv's form."""
    images = [f"{number:016x}" for number in range(20_000)]
    limit = csv.field_size_limit()
    for quote in ("", '"'):
        path = write(tmp_path / "s.csv", f"id,images\nq1,{quote}{' '.join(images)}{quote}\n")
        for _, found in read_images(path):
            assert found == images
            assert csv.field_size_limit() == limit


ROWS = st.lists(st.lists(st.text('ab ,"\n\r\x0b\x85\u2028é', max_size=5), min_size=2, max_size=2), max_size=5)


@given(ROWS, st.sampled_from(["\n", "\r\n"]))
def test_rows_are_those_of_the_csv_module(tmp_path_factory, rows, end):
    path = tmp_path_factory.mktemp("csv") / "s.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["id", "images"], *rows])
    found = [values for _, values in read_rows(path, ("id", "images"))]
    assert found == [[value.strip() for value in row] for row in rows]


@given(st.text('a," \n', max_size=12))
def test_what_the_csv_module_refuses_is_refused(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("csv") / "s.csv", f"id,images\n{text}")
    try:
        rows = [row for row in csv.reader(io.StringIO(f"id,images\n{text}", newline=""), strict=True) if row][1:]
        wanted = rows if all(len(row) == 2 for row in rows) else None
    except csv.Error:
        wanted = None
    if wanted is None:
        with pytest.raises(TableError, match=r"s\.csv, line \d"):
            list(read_rows(path, ("id", "images")))
    else:
        assert [row for _, row in read_rows(path, ("id", "images"))] == [[v.strip() for v in row] for row in wanted]


def test_a_row_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_ROW", 100)
    for text in ("id,images\nq1," + "a" * 200, 'id,images\nq1,"a' + "\na" * 200, "id,images" * 30):
        with pytest.raises(TableError, match="a row of more than 100 characters"):
            list(read_rows(write(tmp_path / "s.csv", text), ("id", "images")))


def test_rows_come_one_by_one(tmp_path):
    path = write(tmp_path / "s.csv", "id,images\n" + "".join(f"q{at},a\n" for at in range(100_000)) + "broken\n")
    assert [name for _, (name, _) in itertools.islice(read_rows(path, ("id", "images")), 3)] == ["q0", "q1", "q2"]


def test_parts_of_the_solution_are_apart(tmp_path):
    solution = read_solution(write(tmp_path / "s.csv", SOLUTION), "images")
    file = write(tmp_path / "p.csv", "id,images\nq1,a b\nq2,x c\nq3,a\n")
    rows = {row["usage"]: row for row in retrieval.evaluate_retrieval(file, solution, 100, "s").rows}
    assert {usage: (row["queries"], row["map@100"]) for usage, row in rows.items()} == {
        "Public": (1, 1.0),
        "Private": (1, 0.5),
        "all": (2, 0.75),
    }


def test_unknown_ids_are_refused_with_counts(tmp_path):
    solution = read_solution(write(tmp_path / "s.csv", SOLUTION), "images")
    file = write(tmp_path / "p.csv", "id,images\nq1,a\nq8,a\nq9,a\n")
    with pytest.raises(TableError, match=r"p.csv: 2 of 3 ids are not among the 3 of s, such as 'q8' .one there: 'q1'"):
        retrieval.evaluate_retrieval(file, solution, 100, "s")


def test_answers_of_which_none_is_right_for_any_image_are_told(tmp_path):
    solution = read_solution(write(tmp_path / "s.csv", SOLUTION), "images")
    for answer, told in (("x/a.jpg", True), ("c", False), ("", False)):
        file = write(tmp_path / "p.csv", f"id,images\nq1,{answer}\nq2,\n")
        report = retrieval.evaluate_retrieval(file, solution, 100, "s")
        assert bool(report.note) == told
        assert report.rows[-1]["map@100"] == 0
    assert (
        "one is 'x/a.jpg', and one there is 'a'"
        in retrieval.evaluate_retrieval(write(tmp_path / "p.csv", "id,images\nq1,x/a.jpg\n"), solution, 100, "s").note
    )
    truth = read_solution(write(tmp_path / "s.csv", "id,landmarks,Usage\nq1,5,Public\nq2,6,Private\n"), "landmarks")
    for landmark, told in (("tower", True), ("6", False)):
        file = write(tmp_path / "p.csv", f"id,landmarks\nq1,{landmark} 0.5\n")
        assert bool(recognition.evaluate_recognition(file, truth, "s").note) == told
