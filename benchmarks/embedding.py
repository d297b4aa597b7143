"""What `landmark-onnx embed` costs beside the model itself: file to shard against prepared batches, in turns.

    python benchmarks/embedding.py res152_arcmargin.onnx --images 24 --rounds 3

Prints one JSON object: images a second of both, the ratio of each round and their median, which alone is a claim, and
bytes of the features for each image.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from landmark_onnx import Retriever
from landmark_onnx.draw import write_image
from landmark_onnx.embedding.folder import Features
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.job import embed, here
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.manifest import ModelIdentity
from landmark_onnx.preprocess import preprocess


def write_photos(folder: Path, count: int) -> Path:
    """`count` photos of 800 x 533 pixels with shapes, colours and noise."""
    y, x = np.mgrid[:533, :800]
    for number in range(count):
        waves = [100 + 90 * np.sin((x * a + y * b) / (17 + number)) for a, b in ((1, 2), (3, -1), (-2, 1))]
        noise = np.random.default_rng(number).normal(0, 8, (533, 800, 3))
        photo = np.stack(waves, axis=-1) + noise + 40 * ((x // 40 + y // 40) % 2)[..., None]
        write_image(folder / f"{number:04}.jpg", np.clip(photo, 0, 255).astype(np.uint8))
    return folder


def model_rate(retriever: Retriever, batch: int, images: int) -> float:
    """Images a second of prepared batches of one photo's shape."""
    feeds = preprocess(retriever.card.preprocess, np.full((533, 800, 3), 128, np.uint8))
    batched = {name: np.repeat(values, batch, axis=0) for name, values in feeds.items()}
    begin = time.perf_counter()
    for _ in range(images // batch):
        retriever.session.run(retriever.card, batched)
    return images // batch * batch / (time.perf_counter() - begin)


def embed_rate(retriever: Retriever, model: ModelIdentity, photos: Path, output: Path) -> tuple[float, Features]:
    """Images a second from listing to a complete folder."""
    begin = time.perf_counter()
    features = embed(list_items([str(photos)]), [model], output, here([retriever]))
    return features.count / (time.perf_counter() - begin), features


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
        model_rate(retriever, arguments.batch_size, arguments.batch_size)
        for number in range(arguments.rounds):
            alone = model_rate(retriever, arguments.batch_size, arguments.images)
            rate, features = embed_rate(retriever, identity, photos, Path(name) / f"features{number}")
            rounds.append((alone, rate))
        stored = sum(path.stat().st_size for path in features.folder.glob("part-*")) / features.count
    ratios = [rate / alone for alone, rate in rounds]
    report = {
        "model": arguments.model.name,
        "images": arguments.images,
        "batch_size": arguments.batch_size,
        "model_images_per_second": statistics.median(alone for alone, _ in rounds),
        "embed_images_per_second": statistics.median(rate for _, rate in rounds),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "bytes_per_image": stored,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
