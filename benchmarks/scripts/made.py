"""What the benchmarks run on: models of the released size with random weights, and photos cut from free ones."""

import dataclasses
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from landmark_onnx.cards.catalogue import card
from landmark_onnx.precision import precision_file
from landmark_onnx.store.catalogue import HOME_VARIABLE
from landmark_onnx.types import Image
from landmark_onnx_bench.resolve import Entrant, entry
from landmark_onnx_export.convert import ExportForm, export_model
from landmark_onnx_export.synthetic.release import write_release

PROGRAM = str(Path(sysconfig.get_path("scripts"), "landmark-onnx"))

CALIBRATION = 64
"""Photos that a reduced precision is made with; it keeps a quarter of them to judge itself by."""

PHOTO_SIZE = (533, 800)
"""Height and width of the photo that the original's times were taken of."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A folder where everything is made once and kept.

    width: of the networks, 1 as released. classes: of classifiers.
    """

    folder: Path
    width: float
    classes: int = 1000

    def model(self, name: str) -> Entrant:
        """The model `name` with its release and the export that nothing optimised."""
        path, raw = (self.folder / kind / f"{name}.onnx" for kind in ("models", "raw"))
        release = self.folder / "releases" / f"{name}.tar"
        if not release.is_file():
            say(f"{name}: release")
            write_release(card(name), release.parent, width=self.width, classes=self.classes)
        for output in (path, raw):
            if not output.is_file():
                say(f"{name}: export to {output}")
                export_model(card(name), release, output, ExportForm(raw=output == raw), check_parity=False)
        return entry(path, releases=[release], raws=[raw])

    def reduced(self, name: str, precision: str) -> str:
        """Have the model's file of a reduced precision made; why there is none, or nothing.

        The command line makes it, because its refusal below a floor is a result too.
        """
        model = self.model(name)
        path = precision_file(model.path, precision)
        if path == model.path or path.is_file():
            return ""
        say(f"{name}: {precision}")
        folder = self.photos(CALIBRATION)[0].parent
        command = [PROGRAM, "quantize", str(model.path), "--calibrate", str(folder), "--precision", precision]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), check=False)
        if path.is_file():
            return ""
        said = [line.strip() for line in done.stderr.splitlines() if any(map(str.isalpha, line))]
        return said[-1] if said else f"{' '.join(command)} said nothing"

    def photos(self, count: int) -> list[Path]:
        """`count` JPEG files of PHOTO_SIZE."""
        folder = self.folder / f"photos{count}"
        paths = [folder / f"{number:04d}.jpg" for number in range(count)]
        if not all(path.is_file() for path in paths):
            folder.mkdir(parents=True, exist_ok=True)
            for path, image in zip(paths, cuts(count), strict=True):
                cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return paths

    def environment(self) -> dict[str, str]:
        """For child processes: a store of their own, so that no cache of the user's is used or filled."""
        return {**os.environ, HOME_VARIABLE: str(self.folder / "store")}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a cut was taken: which photo, and which of its pixels; mirrored: left is right."""

    photo: int
    top: int
    left: int
    rows: int
    columns: int
    mirrored: bool


def cuts(count: int) -> list[Image]:
    """Seeded cuts of scikit-learn's two photos, mirrored and brightened, so that no two are alike."""
    return [image for _, image in framed(count)]


def source_photos() -> list[Image]:
    """Scikit-learn's two photos, BGR."""
    from sklearn.datasets import load_sample_images

    return [photo[:, :, ::-1] for photo in load_sample_images().images]


def framed(count: int, seed: int = 2019) -> Iterator[tuple[Frame, Image]]:
    """Cuts, and where each was taken."""
    photos = source_photos()
    random = np.random.default_rng(seed)
    height, width = PHOTO_SIZE
    for number in range(count):
        photo = photos[number % len(photos)]
        share = random.uniform(0.5, 1.0)
        rows, columns = int(photo.shape[0] * share), int(photo.shape[1] * share)
        top, left = (int(random.integers(0, spare + 1)) for spare in (photo.shape[0] - rows, photo.shape[1] - columns))
        mirrored = bool(random.random() < 0.5)
        frame = Frame(photo=number % len(photos), top=top, left=left, rows=rows, columns=columns, mirrored=mirrored)
        cut = photo[top : top + rows, left : left + columns]
        cut = cut[:, ::-1] if mirrored else cut
        resized = cv2.resize(np.ascontiguousarray(cut), (width, height), interpolation=cv2.INTER_CUBIC)
        bright = cv2.convertScaleAbs(resized, alpha=random.uniform(0.7, 1.2))
        yield frame, np.asarray(bright, np.uint8)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
