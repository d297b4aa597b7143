"""Which addresses are safe to fetch a model from, and how they are shown."""

import contextlib
import ipaddress
import re

import httpx

from landmark_onnx.errors import DownloadError


def check_address(url: str, plain: bool) -> None:
    """Raises: DownloadError unless the scheme is https, file, or http where that is safe or asked for (`plain`)."""
    address = httpx.URL(url)
    if address.scheme == "file" or (address.scheme in ("http", "https") and address.host):
        if address.scheme != "http" or plain or _is_loopback(address.host):
            return
        raise DownloadError(f"{public(url)}: plain HTTP is refused; use https")
    raise DownloadError(f"{public(url)}: wanted an address that begins with https:// or file://")


def check_redirect(old: httpx.URL, new: httpx.URL) -> None:
    """Plain HTTP may lead to HTTPS, or to itself on one host; HTTPS to nothing but HTTPS."""
    same = (old.scheme, old.host) == (new.scheme, new.host)
    if new.scheme != "https" and not (same and new.scheme == "http"):
        raise DownloadError(f"{public(str(old))}: refused to be redirected to {public(str(new))}: it is not HTTPS")


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def public(url: str) -> str:
    """The address without user and password."""
    return re.sub(r"//[^/@]*@", "//", url, count=1)
