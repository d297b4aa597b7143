"""The released networks, built from the shapes of their variables."""
