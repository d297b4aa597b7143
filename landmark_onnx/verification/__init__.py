"""Whether a model answers as it should: tolerances, and the question stored in its file."""
