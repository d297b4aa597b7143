"""What is done to a ranking after the search: expansion, re-ranking, diffusion."""
