"""Paddle's side: variables, programs, and Paddle itself."""
