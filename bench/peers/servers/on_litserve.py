"""LitServe: two workers on the processor, requests joined to batches."""

import os
from typing import Annotated, Any

import litserve
import numpy as np
import orjson
from fastapi import Body, Response
from numpy.typing import NDArray

from segue.bench.peers.servers.plain_cascade import Answers, PlainCascade, songs_from_bytes

Songs = NDArray[np.float32]


class CascadeApi(litserve.LitAPI):
    """The cascade as a LitServe API."""

    def setup(self, device: str) -> None:
        """Load both models."""
        self.cascade = PlainCascade()

    def decode_request(self, request: Annotated[Any, Body()]) -> Songs:
        """Return the songs of a JSON or a raw body."""
        return songs_from_bytes(request) if isinstance(request, bytes) else np.array(request["songs"], np.float32)

    def batch(self, inputs: list[Songs]) -> tuple[Songs, list[int]]:
        """Join the songs of several requests."""
        return np.concatenate(inputs), [len(songs) for songs in inputs]

    def predict(self, inputs: tuple[Songs, list[int]]) -> tuple[Answers, list[int]]:
        """Answer about them."""
        songs, sizes = inputs
        return self.cascade.answer(songs), sizes

    def unbatch(self, output: tuple[Answers, list[int]]) -> list[Answers]:
        """Part the answers by request."""
        answers, sizes = output
        columns = [np.split(column, np.cumsum(sizes)[:-1]) for column in answers]
        return [Answers(*parts) for parts in zip(*columns, strict=True)]

    def encode_response(self, output: Answers) -> Response:
        """Return the answer in JSON."""
        return Response(orjson.dumps(self.cascade.to_json(output)), media_type="application/json")


if __name__ == "__main__":
    api = CascadeApi(max_batch_size=16, batch_timeout=0.002, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
