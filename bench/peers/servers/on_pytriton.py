"""PyTriton: Triton's dynamic batches, two instances of the models in Python."""

import os

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from segue.bench.peers.servers.plain_cascade import SONG_SHAPE, PlainCascade


class Instance:
    """One of the instances that Triton asks."""

    def __init__(self) -> None:
        """Load the models."""
        self.cascade = PlainCascade()

    @batch
    def __call__(self, segments: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        """Answer about a batch (n_songs, 120, 25)."""
        probs, cross_entropy, by_teacher = self.cascade.answer(segments)
        return {
            "probs": probs.astype(np.float32),
            "cross_entropy_nats": cross_entropy.astype(np.float32)[:, None],
            "by_teacher": by_teacher[:, None],
        }


def main() -> None:
    """Serve until told to stop."""
    instances = [Instance(), Instance()]
    config = TritonConfig(
        http_address="127.0.0.1", http_port=int(os.environ["PEER_PORT"]), allow_grpc=False, allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="cascade",
            infer_func=instances,
            inputs=[Tensor(name="segments", dtype=np.float32, shape=SONG_SHAPE)],
            outputs=[
                Tensor(name="probs", dtype=np.float32, shape=(len(instances[0].cascade.classes),)),
                Tensor(name="cross_entropy_nats", dtype=np.float32, shape=(1,)),
                Tensor(name="by_teacher", dtype=np.bool_, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=256, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
