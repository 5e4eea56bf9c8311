"""The study's protocol: the networks and trainings that its experiments have in common.

Keep probabilities are given as the study gives them; a dropout is 1 minus a keep.
"""

from dataclasses import replace

from segue.training.fit.loop import LoopConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig

LOOP = LoopConfig(
    epochs=35, batch_songs=50, optimiser="adam", schedule="constant", learning_rate=1e-4, weight_decay=0.0,
    clip_norm=float("inf"),
)  # fmt: skip
MLP_LOOP = replace(LOOP, weight_decay=1e-2, decay="weights")
MLP = DenseConfig(look="flat", hidden=(500, 500, 25), norm_eps=1e-3, input_dropout=1 - 0.7, hidden_dropout=1 - 0.837)
RNN = RecurrentConfig(norm="none", state=341, bptt_steps=4)
PART_LENGTHS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60)


def student(hidden: int, input_keep: float, hidden_keep: float) -> DenseConfig:
    """Return the study's student: one hidden layer on the flat window."""
    return DenseConfig(
        look="flat", hidden=(hidden,), norm_eps=1e-3, input_dropout=1 - input_keep, hidden_dropout=1 - hidden_keep
    )
