"""What `landmark-onnx embed` costs beside the model itself: file to shard against prepared batches, in turns.

    python benchmarks/scripts/embedding.py res152_arcmargin.onnx --images 24 --rounds 3

Prints one JSON object: of each round, of the model alone and of embed, images a second and images a second of processor
time; the medians of their ratios, which alone are a claim; and bytes of the features for each image. Where other
programs keep the machine busy, the ratio of processor time is the one to trust: it is that of a machine with no idle
core.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from landmark_onnx import Retriever
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.job import embed, here
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import ModelIdentity
from landmark_onnx.embedding.request import FeatureRequest
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.inference.preprocess import preprocess


def write_photos(folder: Path, count: int) -> Path:
    """`count` photos of 800 x 533 pixels with shapes, colours and noise."""
    y, x = np.mgrid[:533, :800]
    for number in range(count):
        waves = [100 + 90 * np.sin((x * a + y * b) / (17 + number)) for a, b in ((1, 2), (3, -1), (-2, 1))]
        noise = np.random.default_rng(number).normal(0, 8, (533, 800, 3))
        photo = np.stack(waves, axis=-1) + noise + 40 * ((x // 40 + y // 40) % 2)[..., None]
        write_image(folder / f"{number:04}.jpg", np.clip(photo, 0, 255).astype(np.uint8))
    return folder


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """Images in a second that passed, and in a second that a core worked."""

    wall: float
    cpu: float


def measured(work: Callable[[], int]) -> Rate:
    """The rate of `work`, which tells how many images it did."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = work()
    return Rate(images / (time.perf_counter() - wall), images / (time.process_time() - cpu))


def run_model(retriever: Retriever, batch: int, images: int) -> int:
    """The model alone, on prepared batches of one photo's shape."""
    feeds = preprocess(retriever.card.preprocess, np.full((533, 800, 3), 128, np.uint8))
    batched = {name: np.repeat(values, batch, axis=0) for name, values in feeds.items()}
    for _ in range(images // batch):
        retriever.session.run(batched)
    return images // batch * batch


def run_embed(retriever: Retriever, model: ModelIdentity, photos: Path, output: Path) -> int:
    """From listing to a complete folder."""
    return embed(list_items([str(photos)]), FeatureRequest(models=[model]), output, here([retriever])).count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    retriever = Retriever(arguments.model, batch_size=arguments.batch_size)
    identity = identify(retriever)
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "photos").mkdir()
        photos = write_photos(Path(name) / "photos", arguments.images)
        run_model(retriever, arguments.batch_size, arguments.batch_size)
        for number in range(arguments.rounds):
            output = Path(name) / f"features{number}"
            alone = measured(functools.partial(run_model, retriever, arguments.batch_size, arguments.images))
            whole = measured(functools.partial(run_embed, retriever, identity, photos, output))
            rounds.append((alone, whole))
        stored = sum(path.stat().st_size for path in output.glob("part-*")) / arguments.images
    report = {
        "model": arguments.model.name,
        "images": arguments.images,
        "batch_size": arguments.batch_size,
        "rounds": [{"alone": dataclasses.asdict(alone), "embed": dataclasses.asdict(whole)} for alone, whole in rounds],
        "ratio": statistics.median(whole.wall / alone.wall for alone, whole in rounds),
        "cpu_ratio": statistics.median(whole.cpu / alone.cpu for alone, whole in rounds),
        "bytes_per_image": stored,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
