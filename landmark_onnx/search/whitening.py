"""PCA whitening: fitted in one pass over any number of rows, kept as plain arrays, applied to rows."""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import SearchError, reason_of
from landmark_onnx.files.atomic import atomic_write
from landmark_onnx.types import Float64

FLOOR = 1e-9
"""The smallest variance that is scaled up, as a share of the largest: at it, float32's rounding of unit vectors stays
under a hundredth of a component. Weaker directions are scaled as if they had this variance, so that noise stays small.
"""
MAX_BYTES = 1 << 30
"""Of the arrays in a file; those that make 512 values of 2,048 take 8 MB."""
ARRAYS = ("mean", "projection", "explained")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """y = (x - mean) projection: uncorrelated components of variance 1, by falling variance of their direction.

    mean: (D,) float64. projection: (D, K) float64, eigenvectors of the covariance over the roots of their eigenvalues;
    the largest entry of each is positive. explained: (K,) float64, share of all variance in each direction.
    Source: Jegou and Chum, Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening,
    ECCV 2012, section 3; covariance with N - 1, as scikit-learn's PCA(whiten=True) has it.
    """

    mean: Float64
    projection: Float64
    explained: Float64

    def __call__(self, rows: npt.NDArray[Any]) -> Float64:
        """(N, D) -> (N, K) float64."""
        return np.asarray((rows - self.mean) @ self.projection, np.float64)

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays, as hexadecimal digits."""
        values = b"".join(np.ascontiguousarray(getattr(self, name), "<f8").tobytes() for name in ARRAYS)
        return hashlib.sha256(repr(self.projection.shape).encode() + values).hexdigest()

    @property
    def file(self) -> str:
        """The name of its file, which its contents give."""
        return f"whitening-{self.digest[:16]}.npz"

    def save(self, folder: Path) -> str:
        """Write an .npz into `folder`; its name."""
        buffer = io.BytesIO()
        np.savez(buffer, **{key: getattr(self, key) for key in ARRAYS})
        with atomic_write(folder / self.file) as file:
            file.write(buffer.getvalue())
        return self.file


def load_whitening(path: Path) -> Whitening:
    """What `Whitening.save` wrote. Raises: SearchError if it is missing or damaged."""
    try:
        # NumPy leaves a file that it opened itself open if it is damaged.
        with path.open("rb") as file:
            if sum(entry.file_size for entry in zipfile.ZipFile(file).infolist()) > MAX_BYTES:
                raise ValueError(f"its arrays claim more than {MAX_BYTES:,} bytes")
            with np.load(file, allow_pickle=False) as stored:
                whitening = Whitening(**{key: np.asarray(stored[key], np.float64) for key in ARRAYS})
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # what a damaged zip or array raises is anything
        raise SearchError(f"{path}: damaged: {reason_of(error)}") from error
    arrays = whitening.mean, whitening.projection, whitening.explained
    mean, projection, explained = (array.shape for array in arrays)
    if (
        len(projection) != 2
        or (mean, explained) != (projection[:1], projection[1:])
        or not all(np.isfinite(each).all() for each in arrays)
    ):
        raise SearchError(f"{path}: damaged: wanted (D,), (D, K), (K,) finite, got {mean}, {projection}, {explained}")
    if path.name != whitening.file:
        raise SearchError(f"{path}: damaged: its contents are not what its name says")
    return whitening


def fit_whitening(batches: Iterable[npt.NDArray[Any]], dims: int, *, floor: float = FLOOR) -> Whitening:
    """Fit to all rows of `batches`, each (n, D), keeping `dims` directions; memory holds D x D float64.

    floor: eigenvalues below floor x the largest are raised to that. Mean and covariance are accumulated in float64.
    Raises: SearchError if dims is not 1..min(D, rows - 1), or rows do not vary at all.
    Source of the update: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm, 1979, equation 2.1.

    >>> rows = np.array([[1, 0], [-1, 0], [0, 2], [0, -2]])
    >>> fit_whitening([rows], 2).explained.tolist()
    [0.8, 0.2]
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for batch in batches:
        if not len(batch):
            continue
        rows = np.asarray(batch, np.float64)
        if not count:
            mean, scatter = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
        own = rows.mean(axis=0)
        rows = rows - own
        shift = own - mean
        total = count + len(rows)
        scatter += rows.T @ rows + np.outer(shift, shift) * (count * len(rows) / total)
        mean = mean + shift * (len(rows) / total)
        count = total
    check_dims(dims, count, len(mean))
    return _whitening(mean, scatter / (count - 1), dims, floor)


def check_dims(dims: int, rows: int, values: int) -> None:
    """Raises: SearchError unless so many rows of so many values have that many directions."""
    most = min(values, rows - 1)
    if not 1 <= dims <= most:
        raise SearchError(f"PCA to {dims} dimensions: {rows:,} rows of {values} values allow 1 to {most}")


def _whitening(mean: Float64, covariance: Float64, dims: int, floor: float) -> Whitening:
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[0] <= 0:
        raise SearchError("PCA: all rows are equal: nothing to whiten")
    kept = vectors[:, :dims]
    # An eigenvector has no sign of its own; given one, the same rows give the same file.
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(dims)])
    scale = np.sqrt(np.maximum(values[:dims], floor * values[0]))
    return Whitening(mean, kept / scale, np.maximum(values[:dims], 0) / np.maximum(values, 0).sum())
