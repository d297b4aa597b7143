import pytest

from landmark_onnx.errors import DownloadError
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
