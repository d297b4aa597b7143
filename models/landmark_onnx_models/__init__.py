"""The model cards, one TOML file per model."""
