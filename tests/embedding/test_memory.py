"""Memory of `embed` does not grow with the images: 3,000 photos of a camera's shape, inputs of the real size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fakes
from landmark_onnx.cards.catalogue import card
from landmark_onnx.images.contact_sheet import write_image

pytest.importorskip("pyarrow")

MEASURE = """
import json, pathlib, re, sys
from landmark_onnx import Retriever
from landmark_onnx.embedding.identity import identify
from landmark_onnx.embedding.job import embed, here
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.embedding.request import EmbedProgress, FeatureRequest

folder, *models = sys.argv[1:]
seen = {}

def done(count, total):
    if count % 100 == 0:
        status = pathlib.Path("/proc/self/status").read_text()
        seen[count] = int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1]) / 1000

retrievers = [Retriever(model) for model in models]
request = FeatureRequest(models=[identify(retriever) for retriever in retrievers], shard_size=256)
items = list_items([folder + "/list.txt"])
progress = EmbedProgress(on_done=done)
embed(items, request, pathlib.Path(folder, "features"), here(retrievers), progress=progress)
print(json.dumps(seen))
"""


WARM, END = 1000, 3000
"""Up to there the allocators' pools grow to what the work takes, with two models to about 360 MB: that is no leak."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("count", [1, 2])
def test_memory_is_flat_past_the_warm_up(count, tmp_path):
    for number in range(24):
        sides = (533, 800) if number % 3 else (800, 533 + 16 * number)
        write_image(tmp_path / f"{number}.jpg", fakes.photo(*sides, seed=number))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{number % 24}.jpg\n" for number in range(END)))
    models = [
        fakes.make_retrieval(tmp_path / f"{name}.onnx", model_card=card(name), seed=at)
        for at, name in enumerate(("res152_arcmargin", "inceptionv4_arcmargin")[:count])
    ]
    command = [sys.executable, "-c", MEASURE, str(tmp_path), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = {int(number): megabytes for number, megabytes in json.loads(done.stdout).items()}
    assert max(seen) == END
    # An image that stays takes 1.2 MB: one in forty would be seen.
    assert max(megabytes for number, megabytes in seen.items() if number >= WARM) - seen[WARM] < 60, seen
