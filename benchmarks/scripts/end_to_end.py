"""From photos to scores: made-up views of sample photos through embed, index, search, recognize and evaluate.

    python benchmarks/scripts/end_to_end.py --folder road

Each photo is a landmark; crops, turns and changes of light are its views, some in the index, some asked about. The
model is the starter, trained on ImageNet, or with --random-weights one of the original's networks that knows nothing;
what answers in random order would get is beside it. Prints one JSON object; every file of the road stays in the folder.
"""

import argparse
import importlib.resources
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from landmark_onnx.cards.catalogue import card
from landmark_onnx.evaluation.submissions import submission_file
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.decode import read_image
from landmark_onnx.types import Image
from landmark_onnx_export.convert import export_model
from landmark_onnx_export.synthetic.release import write_release

STARTER, RANDOM = "efficientnet_lite0", "res152_arcmargin"
PHOTOS = {
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "skimage.data": (
        *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
        *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg"),
        "rocket.jpg",
    ),
}
"""Package -> photos that its wheel ships."""
SIDE = 320


def views(photo: Image, rng: np.random.Generator) -> Iterator[Image]:
    """Any number of views, (SIDE, SIDE, 3) BGR uint8: crops of 60 to 90 %, turned up to 12 degrees, in other light."""
    height, width = photo.shape[:2]
    while True:
        side = rng.uniform(0.6, 0.9) * min(height, width)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        turn = cv2.getRotationMatrix2D((left + side / 2, top + side / 2), rng.uniform(-12, 12), SIDE / side)
        turn[:, 2] += SIDE / 2 - np.array([left + side / 2, top + side / 2])
        view = cv2.warpAffine(photo, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        yield np.clip(view * rng.uniform(0.75, 1.25) + rng.uniform(-15, 15), 0, 255).astype(np.uint8)


def write_photos(folder: Path, indexed: int, asked: int, seed: int) -> list[str]:
    """index/ and queries/ with views of each photo, labels and solutions of both tasks; the ids in the index."""
    rng = np.random.default_rng(seed)
    labels, images, landmarks = ["id,landmark_id"], ["id,images,Usage"], ["id,landmarks,Usage"]
    for package, names in PHOTOS.items():
        for name in names:
            landmark = Path(name).stem
            source = views(read_image(importlib.resources.files(package).joinpath(name).read_bytes()), rng)
            ids = [f"{landmark}-{number}" for number in range(indexed + asked)]
            for number, (each, view) in enumerate(zip(ids, source, strict=False)):
                write_image(folder / ("index" if number < indexed else "queries") / f"{each}.png", view)
            labels += [f"{each},{landmark}" for each in ids[:indexed]]
            for number, each in enumerate(ids[indexed:]):
                usage = ("Public", "Private")[number % 2]
                images.append(f"{each},{' '.join(ids[:indexed])},{usage}")
                landmarks.append(f"{each},{landmark},{usage}")
    for file, lines in (("labels", labels), ("retrieval_solution", images), ("recognition_solution", landmarks)):
        (folder / f"{file}.csv").write_text("\n".join(lines) + "\n")
    return [line.split(",")[0] for line in labels[1:]]


def run(folder: Path, *command: str) -> list[dict[str, float]]:
    """A command as a user runs it, in `folder`; its records."""
    print("$ landmark-onnx", *command, file=sys.stderr)
    program = [sys.executable, "-c", "from landmark_onnx.cli import main; main()", *command]
    done = subprocess.run(program, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_chance(folder: Path, ids: list[str], seed: int) -> None:
    """chance.csv: every query with the whole index in random order."""
    rng = np.random.default_rng(seed)
    with submission_file(folder / "chance.csv", "images") as add:
        for query in sorted((folder / "queries").iterdir()):
            add(query.name, [str(each) for each in rng.permutation(ids)])


def main() -> None:
    """Walk the road, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--indexed", type=int, default=5, help="views of each photo in the index")
    parser.add_argument("--asked", type=int, default=2, help="views of each photo that are asked about")
    parser.add_argument("--step", action="append", default=[], help="after the search, such as alpha-qe:k=3")
    parser.add_argument("--random-weights", action="store_true", help="in place of the starter")
    parser.add_argument("--seed", type=int, default=2019)
    options = parser.parse_args()
    folder: Path = options.folder
    ids = write_photos(folder, options.indexed, options.asked, options.seed)
    model = STARTER
    if options.random_weights:
        model = "model.onnx"
        export_model(card(RANDOM), write_release(card(RANDOM), folder, seed=options.seed), folder / model)

    run(folder, "embed", "index", "-m", model, "-o", "features", "--ids", "stem", "-q")
    run(folder, "index", "build", "features", "-o", "places", "-q")
    steps = [word for step in options.step for word in ("--step", step)]
    run(folder, "search", "queries", "-i", "places", "-m", model, *steps, "-o", "found.ndjson", "-q")
    run(folder, "evaluate", "submission", "found.ndjson", "-o", "retrieval.csv")
    asked = ("recognize", "queries", "-i", "places", "-m", model, "--labels", "labels.csv")
    run(folder, *asked, "--kaggle", "recognition.csv", "-o", "recognised.ndjson", "-q")
    write_chance(folder, ids, options.seed)

    files = ("retrieval.csv", "chance.csv")
    found, chance = (run(folder, "evaluate", "retrieval", file, "retrieval_solution.csv")[-1] for file in files)
    named = run(folder, "evaluate", "recognition", "recognition.csv", "recognition_solution.csv")[-1]
    result = {"queries": found["queries"], "map@100": found["map@100"], "map@100 by chance": chance["map@100"]}
    print(json.dumps(result | {"p@1": found["p@1"], "gap": named["gap"], "accuracy": named["accuracy"]}))


if __name__ == "__main__":
    main()
