"""What an image may be at most, free of NumPy and OpenCV: the command line's help names it."""

MAX_PIXELS = 200_000_000
