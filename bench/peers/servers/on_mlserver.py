"""MLServer: the Open Inference Protocol in JSON, two workers, adaptive batches."""

import os
import socket
import sys

import numpy as np
from mlserver import MLModel
from mlserver.cli.main import main
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from segue.bench.peers.servers.plain_cascade import PlainCascade


class CascadeModel(MLModel):
    """The cascade as an MLServer model."""

    async def load(self) -> bool:
        """Load both models."""
        self.cascade = PlainCascade()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer about the songs of the tensor `segments`."""
        songs = NumpyCodec.decode_input(payload.inputs[0])
        probs, cross_entropy, by_teacher = self.cascade.answer(songs)
        found = {
            "probs": probs.astype(np.float32),
            "cross_entropy_nats": cross_entropy.astype(np.float32)[:, None],
            "by_teacher": by_teacher[:, None],
        }
        outputs = [NumpyCodec.encode_output(name, values) for name, values in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def free_port() -> str:
    """Return a port for what is not asked here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


if __name__ == "__main__":
    os.environ |= {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": os.environ["PEER_PORT"],
        "MLSERVER_GRPC_PORT": free_port(),
        "MLSERVER_METRICS_PORT": free_port(),
        "MLSERVER_PARALLEL_WORKERS": "2",
        "MLSERVER_DEBUG": "false",
        "MLSERVER_MODEL_NAME": "cascade",
        "MLSERVER_MODEL_IMPLEMENTATION": "segue.bench.peers.servers.on_mlserver.CascadeModel",
        "MLSERVER_MODEL_MAX_BATCH_SIZE": "16",
        "MLSERVER_MODEL_MAX_BATCH_TIME": "0.002",
    }
    sys.argv = ["mlserver", "start", "."]
    main()
