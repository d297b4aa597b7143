"""The revisited Oxford and Paris protocols: mAP and mP@k, Easy, Medium and Hard.

Source: filipradenovic/revisitop, python/evaluate.py (compute_ap, compute_map) and example_evaluate.py.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from landmark_onnx.errors import TableError
from landmark_onnx.evaluation.ground_truth import GroundTruth, Query
from landmark_onnx.evaluation.report import Report, Row, mean
from landmark_onnx.evaluation.solutions import read_images

CUTS = (1, 5, 10)
"""The k of mP@k, as the papers report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Protocol:
    """Which images are relevant to a query, and which do not count."""

    name: str
    relevant: Callable[[Query], Collection[int]]
    junk: Callable[[Query], Collection[int]]


PROTOCOLS = (
    Protocol("Easy", lambda query: query.easy, lambda query: query.junk | query.hard),
    Protocol("Medium", lambda query: query.easy | query.hard, lambda query: query.junk),
    Protocol("Hard", lambda query: query.hard, lambda query: query.junk | query.easy),
)


def places(ranking: Iterable[int], relevant: Collection[int], junk: Collection[int]) -> list[int]:
    """Where the relevant ones are in a ranking without junk, from 0."""
    kept = (position for position in ranking if position not in junk)
    return [place for place, position in enumerate(kept) if position in relevant]


def average_precision(found: Sequence[int], relevant: int) -> float:
    """Area under precision over recall, by trapezoids. found: places of relevant ones, from 0, rising.

    relevant: how many there are.
    """
    terms = [((hits / place if place else 1.0) + (hits + 1) / (place + 1)) / 2 for hits, place in enumerate(found)]
    return math.fsum(terms) / relevant


def precision(found: Sequence[int], cut: int) -> float:
    """Share of relevant ones among the first `cut`, or up to the last relevant one if that comes earlier."""
    if not found:
        return 0.0
    end = min(found[-1] + 1, cut)
    return sum(place < end for place in found) / end


def evaluate_revisited(path: Path, truth: GroundTruth, origin: str) -> Report:
    """A ranking file `id,images` against a ground truth, which errors call `origin`.

    id: a name of qimlist. images: names of imlist, the best first; those that are missing count as never found, so a
    comparison with published numbers needs all of them. Raises: TableError, with counts for ids that do not match.
    """
    rankings = _read_rankings(path, truth, origin)
    images: list[Row] = []
    rows: list[Row] = []
    for protocol in PROTOCOLS:
        scores = [
            _score(query, protocol, rankings.get(query.name, [])) for query in truth.queries if protocol.relevant(query)
        ]
        images += scores
        if scores:
            rows.append(_summary(protocol.name, scores))
    if not rows:
        raise TableError(f"{origin}: no query has a relevant image")
    shortest = min((len(ranking) for ranking in rankings.values()), default=0)
    return Report(rows, images, answered=len(rankings), wanted=len(truth.queries), shortest=shortest)


def _score(query: Query, protocol: Protocol, ranking: Sequence[int]) -> Row:
    relevant = protocol.relevant(query)
    found = places(ranking, relevant, protocol.junk(query))
    precisions = {f"p@{cut}": precision(found, cut) for cut in CUTS}
    average = average_precision(found, len(relevant))
    counts = {"relevant": len(relevant), "found": len(found)}
    return {"protocol": protocol.name, "id": query.name, "ap": average, **precisions, **counts}


def _summary(name: str, scores: Sequence[Row]) -> Row:
    keys = {"map": "ap"} | {f"mp@{cut}": f"p@{cut}" for cut in CUTS}
    means = {key: mean(float(score[own] or 0) for score in scores) for key, own in keys.items()}
    return {"protocol": name, "queries": len(scores), **means}


def _read_rankings(path: Path, truth: GroundTruth, origin: str) -> Mapping[str, list[int]]:
    positions = {name: position for position, name in enumerate(truth.images)}
    queries = {query.name for query in truth.queries}
    rankings: dict[str, list[int]] = {}
    unknown: dict[str, list[str]] = {"queries": [], "images": []}
    seen = 0
    for query, images in read_images(path):
        seen += len(images)
        if query not in queries:
            unknown["queries"].append(query)
        unknown["images"] += [image for image in images if image not in positions]
        # A repeated image keeps its first place.
        rankings[query] = [positions[image] for image in dict.fromkeys(images) if image in positions]
    totals = {"queries": len(rankings), "images": seen}
    for kind, names in unknown.items():
        if names:
            known = len(queries) if kind == "queries" else len(positions)
            raise TableError(
                f"{path}: {len(names):,} of {totals[kind]:,} {kind} are not among the {known:,} of {origin}, such as "
                f"{names[0]!r}; names have no folder and no suffix there: landmark-onnx evaluate submission --ids stem "
                "takes them off"
            )
    return rankings
