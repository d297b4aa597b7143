"""LitServe around the same model, for `must_hold.py`: python rival.py MODEL BATCH_SIZE --port N.

Runs under a Python of its own, which has litserve and this package's own dependencies; bodies are the image's bytes.
"""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from landmark_onnx import Retriever


class Embed(litserve.LitAPI):  # type: ignore[misc]
    """The image's bytes -> its embedding."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.model = Retriever(MODEL, batch_size=BATCH_SIZE)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> bytes:
        """The body as it is."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """What LitServe has gathered, as it is."""
        return inputs

    def predict(self, images: list[bytes]) -> list[Any]:
        """The model's own stream: threads decode, images of one shape run together."""
        return self.model(images)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One answer each."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """As the command line writes it."""
        return dict(output.to_json())


PORT, MODEL, BATCH_SIZE = sys.argv[-1], sys.argv[1], int(sys.argv[2])

if __name__ == "__main__":
    api = Embed(max_batch_size=BATCH_SIZE, batch_timeout=0)
    server = litserve.LitServer(api, accelerator="cpu", timeout=300)
    server.run(host="127.0.0.1", port=int(PORT), num_api_servers=1, generate_client_file=False, log_level="warning")
