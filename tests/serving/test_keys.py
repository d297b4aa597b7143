"""Keys: files of them, the environment's, new ones, and a file that changes while the service runs."""

import hashlib
import logging
import tomllib

import pytest

from landmark_onnx.serving.keys import ALL, KeyFileError, Keys, make_key

LONG = "a-key-that-is-long-enough"
DIGEST = hashlib.sha256(LONG.encode()).hexdigest()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.toml"


def test_a_new_key_and_its_line(file):
    key, line = make_key("my.laptop")
    file.write_text(f"{line}\n")
    assert len(key) >= 43
    assert key not in line
    assert Keys(file).find(key) == ("my.laptop", {"read"})
    assert make_key("my.laptop")[0] != key


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "a\nb", "a/b", "x" * 65])
def test_a_name_that_no_key_has(name):
    with pytest.raises(KeyFileError, match="wanted 1 to 64 letters"):
        make_key(name)


def test_what_a_key_may(file):
    file.write_text(f'a = {{ sha256 = "{DIGEST}", may = ["read", "metrics"] }}')
    assert Keys(file).find(LONG) == ("a", ALL)
    assert tomllib.loads(make_key("a")[1])["a"]["may"] == ["read"]


def test_the_key_of_the_environment_may_everything(file):
    file.write_text(make_key("a")[1])
    keys = Keys(file, LONG)
    assert keys.find(LONG) == ("environment", ALL)
    assert [keys.find(each) for each in ("", "a", LONG[:-1], f"{LONG} ", DIGEST, "\udcff")] == [None] * 6


def test_every_key_is_compared(file, monkeypatch):
    """How long it takes must not tell which one it was, nor whether it was one."""
    made = [make_key(f"k{at}") for at in range(5)]
    file.write_text("\n".join(line for _, line in made))
    keys, compared = Keys(file, LONG), []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append(other) or one == other)
    for token in (made[0][0], LONG, "unknown"):
        compared.clear()
        keys.find(token)
        assert len(compared) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "Invalid value"),
        ("a = 1", "a: wanted"),
        ("a = {}", "sha256"),
        ('a = { sha256 = "abc" }', "64 hexadecimal"),
        (f'a = {{ sha256 = "{DIGEST}", may = [] }}', "at least one"),
        (f'a = {{ sha256 = "{DIGEST}", may = ["change"] }}', "may"),
        (f'a = {{ sha256 = "{DIGEST}", key = "x" }}', "key"),
        (f'"a b" = {{ sha256 = "{DIGEST}" }}', "1 to 64 letters"),
        (f'environment = {{ sha256 = "{DIGEST}" }}', "is that of the key in LANDMARK_ONNX_API_KEY"),
        (f'a = {{ sha256 = "{DIGEST}" }}\nb = {{ sha256 = "{DIGEST}" }}', "two names have the same key"),
    ],
)
def test_a_file_that_cannot_be_used_names_itself_and_the_key(file, text, said):
    file.write_text(text)
    with pytest.raises(KeyFileError, match=said) as error:
        Keys(file, "e" * 20)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["", "a" * 15, "\u00e4" * 20, "a" * 20 + "\n"])
def test_a_key_of_the_environment_that_cannot_be_used(key):
    with pytest.raises(KeyFileError, match="LANDMARK_ONNX_API_KEY: wanted at least 16"):
        Keys(environment=key)


def test_a_file_is_read_again_and_a_broken_one_changes_nothing(file, caplog):
    caplog.set_level(logging.INFO)
    (first, line), (second, other) = make_key("first"), make_key("second")
    file.write_text(line)
    keys = Keys(file)
    file.write_text(other)
    assert keys.find(first)
    keys.reload()
    assert (keys.find(first), keys.find(second)) == (None, ("second", {"read"}))
    for breaking in (lambda: file.write_text("a ="), file.unlink):
        breaking()
        keys.reload()
        assert keys.find(second)
        assert "the former keys stay" in caplog.records[-1].getMessage()


def test_without_any_key():
    assert not Keys()
    assert Keys(environment=LONG)
