import json
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.errors import RuleError, SearchError, TableError
from landmark_onnx.evaluation.solutions import Prediction, read_images, read_predictions
from landmark_onnx.evaluation.submissions import convert, landmark_words, submission_file
from landmark_onnx.images.ids import IdRule
from landmark_onnx.recognition.landmark_labels import check_folders, folder_landmark, read_landmarks
from landmark_onnx.recognition.rules import Rule, apply_rules, covered, read_rules, unknown_classes
from landmark_onnx.recognition.votes import ClassVote, class_votes, combine, neighbour_vote
from landmark_onnx.results import Classification, Detections

# --- Votes ---


def test_a_neighbour_votes_one_minus_squared_distance():
    rng = np.random.default_rng(0)
    a, b = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 64)))
    vote = neighbour_vote("x", "tower", float(a @ b))
    assert vote.value == pytest.approx(1 - ((a - b) ** 2).sum())
    assert neighbour_vote("x", "tower", 1.0).value == 1


def test_the_sum_of_the_votes_wins_by_hand():
    """Smlyaka's rule: two neighbours of one landmark beat a nearer one of another."""
    near = [neighbour_vote("a", "arch", 0.9), neighbour_vote("b", "dome", 0.8), neighbour_vote("c", "dome", 0.75)]
    best, other = combine(near, [], neighbour_weight=1)
    assert (best.landmark, best.score) == ("dome", pytest.approx(0.6 + 0.5))
    assert (other.landmark, other.score) == ("arch", pytest.approx(0.8))


def test_classifiers_add_their_probabilities_by_their_weights():
    near = [neighbour_vote("a", "arch", 0.9), neighbour_vote("n", None, 0.99)]
    said = [(ClassVote("one", 4, "dome", 0.7), 1.0), (ClassVote("two", 2, "dome", 0.5), 0.5)]
    said += [(ClassVote("two", 3, None, 0.9), 1.0)]
    got = {each.landmark: each for each in combine(near, said, neighbour_weight=2)}
    assert got["dome"].score == got["dome"].classifiers == pytest.approx(0.7 + 0.25)
    assert got["arch"].score == got["arch"].neighbours == pytest.approx(2 * 0.8)
    assert set(got) == {"arch", "dome"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1, 1)), max_size=8), st.floats(0, 5), st.randoms())
def test_candidates_are_in_order_and_do_not_depend_on_that_of_equal_votes(votes, weight, shuffler):
    near = [neighbour_vote(str(at), landmark, round(cosine, 3)) for at, (landmark, cosine) in enumerate(votes)]
    got = combine(near, [], neighbour_weight=weight)
    assert [each.score for each in got] == sorted((each.score for each in got), reverse=True)
    for each in got:
        own = sum(vote.value for vote in near if vote.landmark == each.landmark)
        assert each.score == pytest.approx(weight * own, abs=1e-9)
    assert len(got) == len({landmark for landmark, _ in votes})


def test_a_classifiers_answer_is_a_vote_for_each_class():
    answer = Classification(indices=np.array([7, 3]), scores=np.array([0.6, 0.3], np.float32), names=("dome", None))
    assert class_votes("one", answer) == [
        ClassVote("one", 7, "dome", pytest.approx(0.6)),
        ClassVote("one", 3, None, pytest.approx(0.3)),
    ]


# --- What is no landmark ---


def boxes(*rows, names=True):
    """Rows of (name, index, score, x, y, width, height)."""
    return Detections(
        boxes=np.array([row[3:] for row in rows], np.float32).reshape(-1, 4),
        classes=np.array([row[1] for row in rows], np.int64),
        scores=np.array([row[2] for row in rows], np.float32),
        names=tuple(row[0] if names else None for row in rows),
    )


PEOPLE = Rule(
    name="people", classes=frozenset({"person", "human face"}), score=0.5, area=0.6, unless=frozenset({"tower"})
)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (boxes(("Person", 1, 0.9, 0, 0, 60, 100)), True),
        (boxes(("Person", 1, 0.9, 0, 0, 59, 100)), False),  # too small
        (boxes(("Person", 1, 0.4, 0, 0, 90, 100)), False),  # too unsure
        (boxes(("Dog", 2, 0.9, 0, 0, 90, 100)), False),  # another class
        (boxes(("Person", 1, 0.9, 0, 0, 40, 100), ("Human face", 3, 0.6, 40, 0, 30, 100)), True),  # together
        (boxes(("Person", 1, 0.9, 0, 0, 40, 100), ("Person", 1, 0.6, 0, 0, 40, 100)), False),  # overlapping
        (boxes(("Person", 1, 0.9, 0, 0, 90, 100), ("Tower", 4, 0.5, 90, 0, 5, 50)), False),  # unless
        (boxes(("Person", 1, 0.9, 0, 0, 90, 100), ("Tower", 4, 0.4, 90, 0, 5, 50)), True),
        (boxes(), False),
    ],
)
def test_a_rule_by_hand(found, holds):
    assert bool(apply_rules([PEOPLE], found, 100, 100)) == holds


def test_a_rule_that_holds_names_its_boxes():
    found = boxes(("Person", 1, 0.75, 0, 0, 80, 100), ("Dog", 2, 0.9, 0, 0, 10, 10))
    (hit,) = apply_rules([PEOPLE], found, 100, 100)
    assert hit.to_json() == {
        "rule": "people",
        "area": pytest.approx(0.8),
        "boxes": [{"name": "Person", "score": 0.75, "bbox": [0, 0, 80, 100]}],
    }


def test_a_class_may_be_an_index():
    rule = Rule(name="one", classes=frozenset({1}), score=0.5, area=0.5)
    (hit,) = apply_rules([rule], boxes((None, 1, 0.9, 0, 0, 90, 90), names=False), 100, 100)
    assert hit.boxes[0].name == "class 1"


BOX = st.tuples(st.integers(-3, 12), st.integers(-3, 12), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(BOX, max_size=8))
def test_the_area_is_that_of_the_pixels_that_any_box_covers(rows):
    """On whole pixels, which can be counted."""
    image = np.zeros((10, 12), bool)
    for x, y, width, height in rows:
        image[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    assert covered(np.array(rows, np.float32).reshape(-1, 4), 12, 10) == pytest.approx(image.mean())


def test_the_shipped_rules_say_whose_they_are():
    rules = read_rules()
    assert {rule.name for rule in rules} == {"people", "animals", "food", "things"}
    assert "person" in rules[0].classes
    import importlib.resources

    text = importlib.resources.files("landmark_onnx.recognition").joinpath("no_landmark.toml").read_text()
    assert "own first guess" in text
    assert len(tomllib.loads(text)["rule"]) == len(rules)


RULE = 'name = "a"\nclasses = ["Dog", 3]\nscore = 0.5\narea = 1\n'


def test_a_users_rules_are_read(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text("[[rule]]\n" + RULE)
    assert read_rules(file) == (Rule(name="a", classes=frozenset({"dog", 3}), score=0.5, area=1),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the key 'rule' is missing"),
        ("rule = []", "rule: wanted at least one, got ()"),
        ("rule = 3", "rule: wanted a list, got 3"),
        ("[rule]\n" + RULE, "rule: wanted a list, got {"),
        ("threshold = 1\n[[rule]]\n" + RULE, "unknown key 'threshold'; there are: rule"),
        (
            "[[rule]]\n" + RULE + "colour = 1",
            "rule 1: unknown key 'colour'; there are: name, classes, score, area, unless",
        ),
        ("[[rule]]\n" + RULE.replace("area = 1", ""), "rule 1: the key 'area' is missing"),
        ("[[rule]]\n" + RULE.replace("area = 1", "area = 0"), "rule 1: area: wanted over 0, at most 1, got 0.0"),
        ("[[rule]]\n" + RULE + "[[rule]]\n" + RULE.replace("0.5", "true"), "rule 2: score: wanted float, got True"),
        ("[[rule]]\n" + RULE.replace("0.5", "nan"), "rule: 1: score: wanted a finite number, got nan"),
        ("[[rule]]\n" + RULE.replace("0.5", "9" * 5000), "a number of thousands of digits"),
        ("[[rule]]\n" + RULE.replace('"a"', "1"), "rule 1: name: wanted str, got 1"),
        ("[[rule]]\n" + RULE.replace('["Dog", 3]', '"Dog"'), "rule 1: classes: wanted a list, got 'Dog'"),
        ("[[rule]]\n" + RULE.replace('["Dog", 3]', "[1.5]"), "rule 1: classes 1: wanted str or int, got 1.5"),
        ("[[rule]]\n" + RULE.replace('["Dog", 3]', "[]"), "rule 1: classes: wanted at least one, got frozenset()"),
        ("rule = " + "[" * 100_000, "nested deeper than"),
        ("[[rule]", "rules.toml"),
    ],
)
def test_bad_rules_are_refused_in_one_line(tmp_path, text, told):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(RuleError) as raised:
        read_rules(file)
    assert told in str(raised.value)
    assert "rules.toml" in str(raised.value)


def test_rules_on_classes_that_the_detector_has_not_are_refused():
    assert unknown_classes([PEOPLE], {1: "Person", 2: "Tower"}) == ["human face"]
    with pytest.raises(RuleError, match=r"rule people: the detector has none of its classes, such as human face; it h"):
        unknown_classes([PEOPLE], {1: "Old Arch"})
    with pytest.raises(RuleError, match="no names at all"):
        unknown_classes([PEOPLE], {})


# --- Landmarks of an index's images ---


@pytest.mark.parametrize(
    "text",
    [
        "id,url,landmark_id\na1,http://x,7\nb2,http://y,8\nc3,,7\n",
        "landmark_id,images\n7,a1 c3\n8,b2\n",
        "\ufeffID,Landmark_ID\r\na1,7\r\nb2,8\r\nc3,7\r\n",
        "label,id\n7,a1\n8,b2\n7,c3\n",
    ],
)
def test_landmarks_are_read_from_every_form(tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_bytes(text.encode())
    assert read_landmarks(file) == {"a1": "7", "b2": "8", "c3": "7"}


def test_landmarks_by_another_rule_of_ids(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("id,label\nx/tower_3.5m.jpg,7\ny,8\n")
    assert read_landmarks(file, IdRule.STEM) == {"tower_3.5m": "7", "y": "8"}


def test_a_file_without_landmarks_says_what_it_wanted(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image,name\n")
    with pytest.raises(TableError, match=r"wanted columns id,landmark_id; .*; its first line has: image, name"):
        read_landmarks(file)
    file.write_text("image" * 1000 + "\n")
    with pytest.raises(TableError, match=r"its first line has: imageimageimageimageimageimageimageimage$"):
        read_landmarks(file)


@pytest.mark.parametrize(
    ("name", "landmark"),
    [
        ("eiffel/1.jpg", "eiffel"),
        ("paris/Notre Dame/1.jpg", "Notre Dame"),
        ("/photos/eiffel/1.jpg", "eiffel"),
        ("./eiffel//1.jpg", "eiffel"),
        ("../eiffel/1.jpg", "eiffel"),
        ("a..b/1.jpg", "a..b"),
        ("1.jpg", None),
        ("./1.jpg", None),
        ("/1.jpg", None),
        ("../1.jpg", None),
        ("0a1b2c3d4e5f6071", None),
        ("", None),
    ],
)
def test_a_folder_is_a_landmark(name, landmark):
    assert folder_landmark(name) == landmark


def test_ids_without_a_folder_are_told_and_refused_if_all_are():
    assert check_folders(["eiffel/1.jpg", "louvre/1.jpg"], "places") == check_folders([], "places") == ""
    told = check_folders(["eiffel/1.jpg", "2.jpg", "3.jpg"], "places")
    assert told.startswith("2 of 3 ids of places have no folder, such as '2.jpg': they have no landmark; ")
    with pytest.raises(SearchError, match=r"2 of 2 ids of places have no folder, such as '2.jpg'.* embed --ids path"):
        check_folders(["2.jpg", "3.jpg"], "places")


# --- Submissions ---


def test_a_submission_reads_back(tmp_path):
    file = tmp_path / "s.csv"
    with submission_file(file, "landmarks") as add:
        add("photos/a1.jpg", landmark_words("7", 1 / 3))
        add("b2", landmark_words(None, None))
    assert file.read_text() == "id,landmarks\na1,7 0.333333333\nb2,\n"
    assert dict(read_predictions(file)) == {"a1": Prediction("7", pytest.approx(1 / 3)), "b2": None}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a/x.jpg", ["1"]), ("b/x.png", ["1"])], "not written: two images have the id 'x'"),
        ([("x", ["two words"])], "'two words', of x: a submission has spaces between ids"),
        ([("x", [""])], "'', of x"),
    ],
)
def test_what_no_submission_can_say_is_refused_and_nothing_written(tmp_path, rows, told):
    file = tmp_path / "s.csv"

    def write():
        with submission_file(file, "images") as add:
            for row in rows:
                add(*row)

    with pytest.raises(TableError) as raised:
        write()
    assert told in str(raised.value)
    assert list(tmp_path.iterdir()) == []


SEARCHED = [
    {"image": "q/b.jpg", "error": "q/b.jpg: broken"},
    {"image": "q/a.jpg", "neighbours": [{"rank": 1, "id": "i2", "score": 0.9}, {"rank": 2, "id": "i1", "score": 0.1}]},
]


@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_answers_of_search_become_a_submission(tmp_path, form):
    lines = list(map(json.dumps, SEARCHED))
    text = "\n".join(lines) + "\n" if form == "ndjson" else "[\n" + ",\n".join(lines) + "\n]\n"
    (tmp_path / "a.ndjson").write_text(text)
    assert convert(tmp_path / "a.ndjson", tmp_path / "s.csv", 1) == "images"
    assert dict(read_images(tmp_path / "s.csv")) == {"b": [], "a": ["i2"]}


def searched(query: dict[str, str], *neighbours: str) -> str:
    return json.dumps({**query, "neighbours": [{"rank": at, "id": each} for at, each in enumerate(neighbours, 1)]})


@pytest.mark.parametrize(
    ("query", "rule", "wanted"),
    [
        ({"image": "q/tower_3.5m.jpg"}, None, {"tower_3.5m": ["x/tower.png", "b_3.5m"]}),
        ({"image": "tower_3.5m"}, None, {"tower_3.5m": ["x/tower.png", "b_3.5m"]}),
        ({"image": "tower.png", "id": "tower.png"}, None, {"tower.png": ["x/tower.png", "b_3.5m"]}),
        ({"image": "x/y", "id": "x/y"}, None, {"x/y": ["x/tower.png", "b_3.5m"]}),
        ({"image": "x/y.jpg", "id": "x/y.jpg"}, IdRule.STEM, {"y": ["tower", "b_3.5m"]}),
        ({"image": "q/y.jpg"}, IdRule.PATH, {"q/y.jpg": ["x/tower.png", "b_3.5m"]}),
        ({"image": "q/0ab1234567890def.jpg"}, IdRule.AUTO, {"0ab1234567890def": ["x/tower.png", "b_3.5m"]}),
    ],
)
def test_ids_of_a_submission(tmp_path, query, rule, wanted):
    (tmp_path / "a.ndjson").write_text(searched(query, "x/tower.png", "b_3.5m"))
    notes = []
    convert(tmp_path / "a.ndjson", tmp_path / "s.csv", 9, rule, notes.append)
    assert dict(read_images(tmp_path / "s.csv")) == wanted
    assert bool(notes) == (rule is None)


def test_ids_that_are_paths_are_told(tmp_path):
    lines = (searched({"image": f"q{at}", "id": f"q{at}"}, f"x/{at}.jpg", f"y{at}") for at in range(3))
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    notes = []
    convert(tmp_path / "a.ndjson", tmp_path / "s.csv", 9, None, notes.append)
    assert notes == ["3 of 9 ids are paths, such as 'x/0.jpg', and solutions have none: --ids stem makes '0' of it"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no image has an answer in it"),
        ("nothing\n", "wanted NDJSON"),
        ('{"image": "a", "error": "broken"}\n', "no image has an answer in it"),
        ('{"image": "a", "cosine": 1}\n', "line 1: no answer of search or recognize: 'neighbours'"),
        ('{"image": "a", "neighbours": [3]}\n', "line 1: no answer of search or recognize"),
        ('{"image": "a", "neighbours": [{"id": 3}]}\n', "line 1: no answer of search or recognize"),
        ('{"image": 3, "neighbours": [{"id": "a"}]}\n', "line 1: no answer of search or recognize"),
    ],
)
def test_what_are_no_answers_is_refused(tmp_path, text, told):
    (tmp_path / "a.ndjson").write_text(text)
    with pytest.raises(TableError) as raised:
        convert(tmp_path / "a.ndjson", tmp_path / "s.csv", 1)
    assert told in str(raised.value)
    assert not (tmp_path / "s.csv").exists()
