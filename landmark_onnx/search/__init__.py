"""Finding the nearest of many embeddings, and what is done with the neighbours afterwards."""

from landmark_onnx.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from landmark_onnx.search.answers import Answer, Hit
    from landmark_onnx.search.ensemble import Ensemble, Member, load_ensemble
    from landmark_onnx.search.exact import search_exact
    from landmark_onnx.search.feature_rows import Feed, choose
    from landmark_onnx.search.hnsw import GraphOptions
    from landmark_onnx.search.index import Index
    from landmark_onnx.search.neighbours import Neighbours
    from landmark_onnx.search.open import AnyIndex, open_ensemble, open_index
    from landmark_onnx.search.qdrant import QdrantIndex
    from landmark_onnx.search.queries import Queries
    from landmark_onnx.search.rerank.chain import STEPS, Chain, parse_step, parse_steps, run_steps, spec
    from landmark_onnx.search.rerank.diffusion import Diffusion
    from landmark_onnx.search.rerank.k_reciprocal import KReciprocal
    from landmark_onnx.search.rerank.query_expansion import AlphaQueryExpansion, DatabaseAugmentation
    from landmark_onnx.search.rerank.state import Step
    from landmark_onnx.search.rerank.superglobal import SuperGlobal
    from landmark_onnx.search.whitening import Whitening, fit_whitening
    from landmark_onnx.search.writer import build

__all__ = [
    "STEPS",
    "AlphaQueryExpansion",
    "Answer",
    "AnyIndex",
    "Chain",
    "DatabaseAugmentation",
    "Diffusion",
    "Ensemble",
    "Feed",
    "GraphOptions",
    "Hit",
    "Index",
    "KReciprocal",
    "Member",
    "Neighbours",
    "QdrantIndex",
    "Queries",
    "Step",
    "SuperGlobal",
    "Whitening",
    "build",
    "choose",
    "fit_whitening",
    "load_ensemble",
    "open_ensemble",
    "open_index",
    "parse_step",
    "parse_steps",
    "run_steps",
    "search_exact",
    "spec",
]

_HOMES = {
    "landmark_onnx.search.answers": ("Answer", "Hit"),
    "landmark_onnx.search.hnsw": ("GraphOptions",),
    "landmark_onnx.search.rerank.diffusion": ("Diffusion",),
    "landmark_onnx.search.ensemble": ("Ensemble", "Member", "load_ensemble"),
    "landmark_onnx.search.exact": ("search_exact",),
    "landmark_onnx.search.rerank.query_expansion": ("AlphaQueryExpansion", "DatabaseAugmentation"),
    "landmark_onnx.search.feature_rows": ("Feed", "choose"),
    "landmark_onnx.search.index": ("Index",),
    "landmark_onnx.search.neighbours": ("Neighbours",),
    "landmark_onnx.search.open": ("AnyIndex", "open_ensemble", "open_index"),
    "landmark_onnx.search.qdrant": ("QdrantIndex",),
    "landmark_onnx.search.queries": ("Queries",),
    "landmark_onnx.search.rerank.k_reciprocal": ("KReciprocal",),
    "landmark_onnx.search.rerank.state": ("Step",),
    "landmark_onnx.search.rerank.chain": ("STEPS", "Chain", "parse_step", "parse_steps", "run_steps", "spec"),
    "landmark_onnx.search.rerank.superglobal": ("SuperGlobal",),
    "landmark_onnx.search.whitening": ("Whitening", "fit_whitening"),
    "landmark_onnx.search.writer": ("build",),
}
if not TYPE_CHECKING:  # where a module has __getattr__, mypy takes any name to be there
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
