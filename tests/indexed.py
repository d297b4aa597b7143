"""Made-up features: batches, folders and ensembles of random vectors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landmark_onnx.embedding.feature_folder import Batch, Features, ModelIdentity, write_features
from landmark_onnx.search.ensemble import Ensemble, Member

DIM = 16


def identity(name: str = "a", dim: int = DIM, **facts: Any) -> ModelIdentity:
    values = {"sha256": name * 64, "preprocess": "0" * 64, "precision": "fp32"} | facts
    return ModelIdentity(name=name, dim=dim, **values)


def ensemble(*names: str, dim: int = DIM) -> Ensemble:
    return Ensemble(tuple(Member(identity(name, dim)) for name in names or ("a",)))


def vectors(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def batches(ids: Sequence[str], seed: int = 0, *, size: int = 7, names: Sequence[str] = ("a",)) -> Iterator[Batch]:
    """Rows of `ids`; an id's vector follows from it and `seed` alone."""
    for start in range(0, len(ids), size):
        part = list(ids[start : start + size])
        yield Batch(part, [f"photos/{name}.jpg" for name in part], {name: rows(part, seed, name) for name in names})


def rows(ids: Sequence[str], seed: int = 0, model: str = "a") -> np.ndarray:
    return np.concatenate([vectors(1, seed=int.from_bytes(f"{model}/{name}/{seed}".encode()) % 2**63) for name in ids])


def unit(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def folder(path: Path, ids: Sequence[str], seed: int = 0, names: Sequence[str] = ("a",)) -> Features:
    return write_features(path, [identity(name) for name in names], batches(ids, seed, names=names))


def brute(database: np.ndarray, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Every score in float64 by its definition, rounded once; sorted by falling score, then rising position."""
    products = queries[:, None].astype(np.float64) * database[None].astype(np.float64)
    scores = products.sum(axis=-1).astype(np.float32)
    order = np.stack([np.lexsort((np.arange(len(database)), -row)) for row in scores])[:, :top]
    return order, np.take_along_axis(scores, order, 1)
