"""`python -m landmark_onnx`: the command line, where its own script is not on the path."""

from landmark_onnx.cli import main

if __name__ == "__main__":
    main()
