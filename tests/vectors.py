"""Vectors for the tests of searching, and a search that is nothing but its definition."""

import numpy as np

from landmark_onnx.search.neighbours import Neighbours


def unit(vectors):
    """Rows of length 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def brute_search(database, queries, top):
    """Sorted products, in float64; of equal ones the lower position first."""
    products = np.asarray(queries, np.float64) @ np.asarray(database, np.float64).T
    order = np.argsort(-products.astype(np.float32), axis=1, kind="stable")[:, :top]
    return Neighbours(order, np.take_along_axis(products, order, axis=1).astype(np.float32))


def clusters(*, seed, groups=6, members=12, dim=16, noise=0.5, labelled=False):
    """One query (groups, D) and `members` database vectors (groups x members, D) of each group; their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim))
    labels = np.tile(np.arange(groups), members)
    database = unit(unit(centres)[labels] + rng.normal(0, noise / np.sqrt(dim), (len(labels), dim)) * 2)
    queries = unit(unit(centres) + rng.normal(0, noise / np.sqrt(dim), centres.shape) * 2)
    return (queries, database, labels) if labelled else (queries, database)
