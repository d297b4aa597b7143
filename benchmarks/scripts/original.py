"""The original's way from a JPEG to a tensor, written again from what it computes, to be timed against ours.

Source: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py, `preprocessor`: cv2.imread, resize with
Lanczos4 on uint8, RGB, CHW, then / 255, - mean, / std over whole float arrays.
"""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.inference.preprocess import floored_size

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def original_chain(rule: Preprocess, path: Path) -> npt.NDArray[np.float32]:
    """A photo -> (1, 3, H, W) float32, equal to ours to the bit."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    image = cv2.resize(image, floored_size(rule, width, height), interpolation=cv2.INTER_LANCZOS4)
    tensor = image[:, :, ::-1].astype("float32").transpose((2, 0, 1)) / 255
    tensor -= np.array(MEAN).reshape((3, 1, 1))
    tensor /= np.array(STD).reshape((3, 1, 1))
    return tensor[np.newaxis]
