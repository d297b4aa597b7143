"""Embeddings of very many images: what to embed, the pass over it, and the folder of features it leaves."""
