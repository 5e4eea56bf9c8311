"""KServe's model server: the Open Inference Protocol in JSON and binary, two workers."""

import os
import uuid
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from segue.bench.peers.servers.plain_cascade import PlainCascade


class CascadeModel(Model):
    """The cascade as a KServe model."""

    def __init__(self) -> None:
        """Load both models."""
        super().__init__("cascade")
        self.cascade = PlainCascade()
        self.ready = True

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Let a worker load the models itself, since sessions of ONNX Runtime do not travel between processes."""
        return CascadeModel, ()

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None, **_: Any) -> InferResponse:
        """Answer about the songs of the tensor `segments`."""
        songs = payload.inputs[0].as_numpy()
        probs, cross_entropy, by_teacher = self.cascade.answer(songs)
        found = {
            "probs": ("FP32", probs.astype(np.float32)),
            "cross_entropy_nats": ("FP32", cross_entropy.astype(np.float32)),
            "by_teacher": ("BOOL", by_teacher),
        }
        outputs = []
        for name, (kind, values) in found.items():
            output = InferOutput(name, list(values.shape), kind)
            output.set_data_from_numpy(values, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            payload.id or str(uuid.uuid4()), "cascade", outputs, use_binary_outputs=payload.use_binary_outputs
        )


if __name__ == "__main__":
    ModelServer(
        http_port=int(os.environ["PEER_PORT"]), workers=2, enable_grpc=False, enable_latency_logging=False
    ).start([CascadeModel()])
