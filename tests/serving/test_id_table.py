import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.search.texts import Texts, append_texts
from landmark_onnx.serving.id_table import IdTable

ANY = st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
"""Whatever an id may have: text, and bytes of a file's name that are none."""


class Bytes:
    """What texts are written to."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


def texts(ids):
    """Ids as an index has them."""
    ends, data = Bytes(), Bytes()
    append_texts(ids, 0, ends, data)
    return Texts(np.frombuffer(ends.data, "<i8"), np.frombuffer(data.data, np.uint8))


@given(
    st.lists(st.text(ANY), unique_by=lambda text: text.encode("utf-8", "surrogateescape"), max_size=40),
    st.text(ANY),
    st.sampled_from([hash, len, lambda text: 0, lambda text: -(2**63) + len(text) % 2]),
)
def test_each_id_is_found_and_no_other_whatever_shares_a_hash(ids, other, hashed):
    mapped = texts(ids)
    table = IdTable(mapped, hashed=lambda text: hashed(text))
    assert [table.find(name) for name in mapped] == list(range(len(ids)))
    assert (table.find(other) is None) == (other not in list(mapped))


def test_ids_are_not_paths():
    ids = ["a/b", "a/../b", "..", "a\\b", "", "/etc/passwd", "ä", "a\u0308", "\udcff"]
    table = IdTable(ids)
    assert [table.find(name) for name in ids] == list(range(len(ids)))
    assert table.find("b") is None


def test_a_row_takes_12_bytes():
    assert IdTable([str(number) for number in range(1000)]).nbytes == 12_000
