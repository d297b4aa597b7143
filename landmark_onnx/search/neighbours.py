"""What every search answers."""

import dataclasses

from landmark_onnx.types import Float32, Int64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The K nearest rows of a database to each of Q queries, best first; of equal ones the lower position first.

    positions: (Q, K) int64, rows of the database. scores: (Q, K) float32, higher is nearer: cosine, unless a step
    after the search says otherwise.
    """

    positions: Int64
    scores: Float32
