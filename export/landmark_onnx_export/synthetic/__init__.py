"""Releases with random weights, for tests and the demo."""
