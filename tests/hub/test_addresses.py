import importlib.util

import pytest

from landmark_onnx.errors import DownloadError, MissingExtraError
from landmark_onnx.extras import MODEL_PACKAGES
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE, Address, addresses, file_name, local_folder

HF = "hf://owner/a.repo@abc123/onnx/model.onnx"
HF_PATH = "owner/a.repo/resolve/abc123/onnx/model.onnx"
VARIABLES = (MIRROR_VARIABLE, OFFLINE_VARIABLE, "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (HF, f"https://huggingface.co/{HF_PATH}"),
        ("hf://o/r@refs%2Fpr%2F1/a b.onnx", "https://huggingface.co/o/r/resolve/refs%2Fpr%2F1/a%20b.onnx"),
        ("modelscope://o/r@v3.9.2/x/y.onnx", "https://www.modelscope.cn/models/o/r/resolve/v3.9.2/x/y.onnx"),
        ("https://example.org/a%20b.tar?x=1", "https://example.org/a%20b.tar?x=1"),
        ("file:///srv/a.tar", "file:///srv/a.tar"),
    ],
)
def test_what_an_address_means(url, wanted):
    assert addresses(url) == [Address(url=wanted)]


@pytest.mark.parametrize(
    "url", ["hf://owner/model.onnx", "hf://o/r/x.onnx", "hf://o/r@/x", "hf://o/r@v/", "modelscope://r"]
)
def test_an_address_of_a_hub_is_pinned_to_a_revision(url):
    with pytest.raises(DownloadError, match=r"wanted (hf|modelscope)://OWNER/REPOSITORY@REVISION/PATH, got "):
        addresses(url)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import would fail, with a file."""
    folder = tmp_path / "weights_of_mine"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "models" / "a b.pth").write_bytes(b"1")
    (tmp_path / "secret").write_bytes(b"2")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_of_a_package_is_one_of_this_machine_and_has_no_mirror(package, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror/")
    wanted = [Address(url=(package / "models" / "a b.pth").as_uri(), size=1)]
    assert addresses("package://weights_of_mine/models/a%20b.pth", size=1, offline=True) == wanted


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("package://weights_of_mine/models/none.pth", "no such file is installed"),
        ("package://weights_of_mine/models", "no such file is installed"),
        ("package://no_such_package_here/a.pth", "no such package is installed"),
        ("package://weights_of_mine/../secret", "wanted package://NAME/PATH"),
        ("package://weights_of_mine/models/%2E%2E/%2e%2e/secret", "wanted package://NAME/PATH"),
        ("package://weights_of_mine/%2Fetc/passwd", "wanted package://NAME/PATH"),
        ("package://weights_of_mine.models/a b.pth", "wanted package://NAME/PATH"),
        ("package://weights_of_mine", "wanted package://NAME/PATH"),
    ],
)
def test_an_address_leads_to_nothing_outside_the_package(package, url, words):
    with pytest.raises(DownloadError, match=words):
        addresses(url)


def test_a_model_package_that_is_not_there_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for package, (extra, *_) in MODEL_PACKAGES.items():
        with pytest.raises(MissingExtraError, match=rf"{package} is not installed; .*landmark-onnx\[{extra}\]"):
            addresses(f"package://{package}/models/x.pth")


def test_the_hub_is_the_one_that_huggingface_hub_would_ask(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org/")
    monkeypatch.setenv("HF_TOKEN", " secret\n")
    assert addresses(HF) == [Address(url=f"http://hub.example.org/{HF_PATH}", token="secret", plain=True)]
    assert "secret" not in repr(addresses(HF))
    assert not addresses("https://huggingface.co/x")[0].token, "an address that was written out is nobody's hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert addresses(HF)[0].forbidden == "HF_HUB_OFFLINE is set"
    assert not addresses("modelscope://o/r@v/x")[0].forbidden


def test_a_mirror_has_the_whole_path_and_no_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror/models/")
    mirror, host = addresses(HF, size=7)
    assert mirror == Address(url=f"http://mirror/models/{HF_PATH}", plain=True, size=7)
    assert (host.token, host.size) == ("secret", 7)
    other = addresses(HF.replace("a.repo", "b.repo"))[0]
    assert other.url != mirror.url, "model.onnx of two models"


def test_offline_only_this_machine_is_asked(monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "file:///srv")
    assert [place.forbidden for place in addresses(HF, offline=True)] == ["", "offline"]
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    assert [place.forbidden for place in addresses(HF)] == ["", "offline"]


def test_names_and_folders(tmp_path):
    assert file_name("hf://o/r@v/onnx/model.onnx_data") == "model.onnx_data"
    assert file_name("https://example.org/a/b%20c.tar?x=/y") == "b c.tar"
    assert local_folder(tmp_path.as_uri()) == tmp_path
    assert local_folder((tmp_path / "none").as_uri()) is None
    assert local_folder("https://example.org/") is None
