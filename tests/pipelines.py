"""Pipelines around a session that needs no network: each answer says which image it is of."""

import time

import numpy as np

import fakes
from landmark_onnx.errors import SessionError
from landmark_onnx.images.decode import ReadOptions
from landmark_onnx.inference.pipeline import Pipeline
from landmark_onnx.results import Embedding

CARD = fakes.small_card(fakes.RETRIEVAL, size=32)
SHAPES = [(40, 40), (40, 80), (80, 40)]


class FakeSession:
    """Answers the mean of each image, of which `plain` makes its number; remembers the shape of each run."""

    def __init__(self, refuse=()):
        self.runs = []
        self.seconds = 0
        self.refuse = refuse

    def run(self, feeds):
        shape = feeds["image"].shape
        self.runs.append(shape)
        time.sleep(self.seconds)
        if shape[2:] in self.refuse:
            raise SessionError(f"too large: {shape}")
        if "im_info" in feeds:
            return {"rois": np.zeros((7, 4)), "probability": feeds["image"].mean(keepdims=True)[0, 0]}
        return {"embedding": feeds["image"].mean(axis=(1, 2, 3))[:, np.newaxis]}


def plain(number, shape=(40, 40)):
    return np.full((*shape, 3), number % 256, np.uint8)


def number_of(result):
    """Which image a result is of: its mean, turned back."""
    mean = np.mean(CARD.preprocess.mean)
    spread = np.mean(1 / np.array(CARD.preprocess.std))
    offset = np.mean(np.array(CARD.preprocess.mean) / np.array(CARD.preprocess.std))
    assert mean > 0
    return round((float(result.vector[0]) + offset) / spread * 255)


def embed(_, outputs):
    return Embedding(vector=outputs["embedding"][0])


def make(session, *, batch_size=4, card=CARD, max_pixels=10**6, answer=None):
    reading = ReadOptions(max_pixels=max_pixels)
    return Pipeline(session=session, card=card, answer=answer or embed, batch_size=batch_size, reading=reading)
