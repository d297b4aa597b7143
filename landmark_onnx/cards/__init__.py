"""Model cards: every fact of a model, declared once, read and checked once."""
