"""Files of a card, fetched from the first of their addresses that has them."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from landmark_onnx.errors import DownloadError, ModelFileError
from landmark_onnx.hub.addresses import addresses, is_offline

if TYPE_CHECKING:
    from landmark_onnx.hub.download import Received, Rules
    from landmark_onnx.hub.resume import Fetched

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """What a pull reports. on_stage: a stage begins. on_done: bytes of a download that are there, and of how many."""

    on_stage: Callable[[str], None] = lambda stage: None
    on_done: "Received" = lambda done, total: None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """How the files of the model `name` are fetched. offline: from this machine alone."""

    name: str
    offline: bool = False
    progress: PullProgress = PullProgress()
    rules: "Rules | None" = None

    def file(self, url: str, path: Path, check: "Callable[[Fetched], None]", *, size: int = 0) -> Path:
        """Bring the file at an address of a card to `path`. check: raises if it is not acceptable. size: bytes, or 0.

        Raises: DownloadError with what each address answered; ModelFileError if that is because we are offline.
        """
        from landmark_onnx.hub.download import download

        reasons = []
        for place in addresses(url, size=size, offline=self.offline):
            if place.forbidden:
                reasons.append(f"{place.url}: {place.forbidden}")
                continue
            self.progress.on_stage("download")
            try:
                return download(place, path, check=check, on_done=self.progress.on_done, rules=self.rules).path
            except (DownloadError, ModelFileError) as error:
                reasons.append(error.reason if isinstance(error, DownloadError) else str(error))
                logger.info("%s", reasons[-1])
        if self.offline or is_offline():
            why = "; ".join(["offline, and neither the model nor its release is in the store", *reasons])
            how = f"landmark-onnx models add FILE --name {self.name}"
            raise ModelFileError(f"{self.name}: {why}; add it: {how}")
        raise DownloadError("; ".join(reasons))

    def declared(self, url: str, path: Path, sha256: str, *, size: int = 0) -> Path:
        """As `file`, unless it is there already; it must have the hash that its card declares."""

        def check(fetched: "Fetched") -> None:
            if fetched.sha256 != sha256.lower():
                what = f"wanted sha256 {sha256}, as its card declares, got {fetched.sha256}"
                raise ModelFileError(f"{fetched.url}: {what}")

        return path if path.is_file() else self.file(url, path, check, size=size)
