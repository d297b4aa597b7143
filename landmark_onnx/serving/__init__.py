"""HTTP: models, indexes and recognition as a service."""
