import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.errors import ModelFileError
from landmark_onnx.modelfile import labels
from landmark_onnx.modelfile.labels import parse_labels, read_labels


@pytest.mark.parametrize("separator", ["\t", ",", ":", " ", " , ", ": ", " \t "])
@pytest.mark.parametrize("name", ["Tower", "Traffic light", "Café", "3D printer", "St. Paul's"])
def test_either_order_and_every_separator(name, separator):
    wanted = {0: "background", 17: name}
    assert parse_labels(f"background{separator}0\n{name}{separator}17\n", "x") == wanted
    assert parse_labels(f"0{separator}background\n17{separator}{name}\n", "x") == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "http://commons.wikimedia.org/wiki/Category:Foo,_Bar,7",
            {7: "http://commons.wikimedia.org/wiki/Category:Foo,_Bar"},
        ),
        (
            "7,http://commons.wikimedia.org/wiki/Category:Foo,_Bar",
            {7: "http://commons.wikimedia.org/wiki/Category:Foo,_Bar"},
        ),
        ('7,"Foo, Bar"', {7: "Foo, Bar"}),
        ('"Foo ""Bar""",7', {7: 'Foo "Bar"'}),
        ('"Foo 7', {7: '"Foo'}),
        ("5 7", {5: "7"}),
        ("Route 66\t7", {7: "Route 66"}),
        ("Man,Person 5", {5: "Man,Person"}),
        ("  7 : Tower  ", {7: "Tower"}),
        ("007 Bond", {7: "Bond"}),
    ],
)
def test_a_name_may_hold_separators(line, wanted):
    assert parse_labels(line, "x") == wanted


def test_the_kaggle_file(tmp_path):
    path = tmp_path / "train_label_to_category.csv"
    base = "http://commons.wikimedia.org/wiki/Category:"
    path.write_text(f"landmark_id,category\n0,{base}Happy_Valley\n1,{base}Luna,_Park\n", encoding="utf-8")
    assert read_labels(path) == {0: f"{base}Happy_Valley", 1: f"{base}Luna,_Park"}


def test_blank_lines_a_byte_order_mark_and_any_line_end(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeff\r\n1,One\r\n\r\n2,Zwei ü\n  \n3,Three".encode())
    assert read_labels(path) == {1: "One", 2: "Zwei ü", 3: "Three"}


def test_the_same_line_twice_is_no_contradiction():
    assert parse_labels("1,One\n1,One", "x") == {1: "One"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,One\n1,Two", "x, line 2: index 1 is 'One' already, now 'Two'"),
        ("1,One\nnonsense", "x, line 2: wanted a class index and a name, got 'nonsense'"),
        ("1,One\n2,", "x, line 2: wanted a class index and a name, got '2,'"),
        ("1,One\n-2,Two", "x, line 2: wanted a class index and a name, got '-2,Two'"),
        ("1,One\n1234567890,Two", "x, line 2: wanted"),
        ("1,One\n" + "y" * 200, "got '" + "y" * 80 + "'"),
        ("", "x: no line has a class index and a name"),
        ("landmark_id,category\n", "x: no line has a class index and a name"),
    ],
)
def test_what_is_wrong_names_the_origin_and_the_line(text, message):
    with pytest.raises(ModelFileError) as caught:
        parse_labels(text, "x")
    assert message in str(caught.value)


def test_a_name_longer_than_a_csv_field_may_be():
    name = "y" * 200_000
    assert parse_labels(f"{name} 3", "x") == {3: name}


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(ModelFileError, match=r"none\.txt"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(ModelFileError, match=tmp_path.name):
        read_labels(tmp_path)
    path = tmp_path / "latin.txt"
    path.write_bytes(b"1,Caf\xe9\n")
    with pytest.raises(ModelFileError, match=r"latin\.txt.*utf-8"):
        read_labels(path)
    monkeypatch.setattr(labels, "MAX_BYTES", 3)
    with pytest.raises(ModelFileError, match=r"latin\.txt: larger than"):
        read_labels(path)


@given(st.text())
def test_any_text_is_a_map_or_an_error(text):
    try:
        names = parse_labels(text, "x")
    except ModelFileError:
        return
    assert all(isinstance(index, int) and name for index, name in names.items())


@given(
    st.dictionaries(
        st.integers(0, 999_999), st.from_regex(r"[A-Za-z(][^\s,:\"][A-Za-z ]{0,20}[a-z]", fullmatch=True), min_size=1
    )
)
def test_what_is_written_is_read(names):
    text = "\n".join(f"{name}\t{index}" for index, name in names.items())
    assert parse_labels(text, "x") == names
