"""Sessions: the execution providers, their options, and what runs a model."""
