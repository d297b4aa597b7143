"""Where a file of a card may be fetched: what its address means, and the user's mirror."""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from landmark_onnx.errors import DownloadError, MissingExtraError
from landmark_onnx.extras import MODEL_PACKAGES

MIRROR_VARIABLE = "LANDMARK_ONNX_MIRROR"
OFFLINE_VARIABLE = "LANDMARK_ONNX_OFFLINE"

_HUGGING_FACE = "https://huggingface.co"
_MODELSCOPE = "https://www.modelscope.cn/models"

_IN_HUB = re.compile(r"(hf|modelscope)://([\w.-]+/[\w.-]+)@([^/@]+)/([^?#]+)")
_IN_PACKAGE = re.compile(r"package://([A-Za-z_]\w*)/([^?#]+)", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a file is. token: for this host alone. size: what the file must have, in bytes; 0 if that is not known.

    plain: plain HTTP is the user's own choice there. forbidden: why it is not to be asked, or "".
    """

    url: str
    token: str = dataclasses.field(default="", repr=False)
    size: int = 0
    plain: bool = False
    forbidden: str = ""


def addresses(url: str, *, size: int = 0, offline: bool = False) -> list[Address]:
    """Where the file at an address of a card may be, best first: a mirror has the whole path of it.

    offline: nothing but files of this machine is to be asked. Raises: DownloadError if it is no address of a hub, or
    there is no such file in a package; MissingExtraError if that package is not installed.

    >>> [place.url for place in addresses("hf://gberton/MegaLoc@a0f3472/megaloc.onnx")]
    ['https://huggingface.co/gberton/MegaLoc/resolve/a0f3472/megaloc.onnx']
    """
    if url.startswith("package:"):
        return [Address(url=_packaged(url).as_uri(), size=size)]
    places = [_meant(url)]
    if mirror := os.environ.get(MIRROR_VARIABLE, "").strip():
        path = urlsplit(places[0].url).path.lstrip("/")
        places.insert(0, Address(url=f"{mirror.rstrip('/')}/{path}", plain=True))
    away = "offline" if offline or is_offline() else ""
    return [
        dataclasses.replace(
            place, size=size, forbidden="" if place.url.startswith("file:") else away or place.forbidden
        )
        for place in places
    ]


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "no", "false", "off")


def file_name(url: str) -> str:
    """What the file at an address is called."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def local_folder(url: str) -> Path | None:
    """The folder of this machine that an address names, if it is one."""
    path = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    return path if path and path.is_dir() else None


def _packaged(url: str) -> Path:
    """The file of an installed package, which is not imported."""
    found = _IN_PACKAGE.fullmatch(url)
    parts = PurePosixPath(unquote(found[2])).parts if found else ()
    if not found or ".." in parts or parts[0] == "/":
        raise DownloadError(f"{url}: wanted package://NAME/PATH, a file inside a package that is installed")
    package = found[1]
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    if not folders and package in MODEL_PACKAGES:
        raise MissingExtraError(package, *MODEL_PACKAGES[package])
    file = next((file for folder in folders if (file := Path(folder, *parts)).is_file()), None)
    if file is None:
        raise DownloadError(f"{url}: {'no such file' if folders else 'no such package'} is installed")
    return file.absolute()


def _meant(url: str) -> Address:
    """The plain address. Sources: huggingface_hub, constants.py and utils/_auth.py; RapidOCR, default_models.yaml."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("hf", "modelscope"):
        return Address(url=url)
    found = _IN_HUB.fullmatch(url)
    if not found:
        raise DownloadError(f"{url}: wanted {scheme}://OWNER/REPOSITORY@REVISION/PATH, got {rest!r} behind the scheme")
    place = f"{found[2]}/resolve/{found[3]}/{quote(unquote(found[4]))}"
    if scheme == "modelscope":
        return Address(url=f"{_MODELSCOPE}/{place}")
    chosen = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return Address(
        url=f"{chosen or _HUGGING_FACE}/{place}",
        token="".join(os.environ.get("HF_TOKEN", "").split()),
        plain=bool(chosen),
        forbidden="HF_HUB_OFFLINE is set" if offline else "",
    )
