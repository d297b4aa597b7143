"""Photos for a benchmark that was given none: seeded, JPEG, with large shapes, edges and grain as photos have."""

from pathlib import Path

import cv2
import numpy as np

from landmark_onnx.types import Image

QUALITY = 90
GRAIN = 4.0


def write_photos(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """Write `count` JPEG files of `height` x `width` pixels; the same ones for the same arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        path = folder / f"{seed:03d}.jpg"
        encoded = cv2.imencode(".jpg", scene(height, width, seed), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        path.write_bytes(encoded.tobytes())
        paths.append(path)
    return paths


def scene(height: int, width: int, seed: int) -> Image:
    """(H, W, 3) BGR uint8."""
    random = np.random.default_rng(seed)
    sky = cv2.resize(random.integers(0, 256, (4, 5, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    image = sky.astype(np.float32)
    for _ in range(24):
        top, left = random.integers(0, height), random.integers(0, width)
        bottom, right = top + random.integers(1, height // 2 + 2), left + random.integers(1, width // 2 + 2)
        image[top:bottom, left:right] = 0.4 * image[top:bottom, left:right] + 0.6 * random.integers(0, 256, 3)
    image += random.normal(0, GRAIN, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)
