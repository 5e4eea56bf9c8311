"""The variants that were tried on the real songs, by name; `segue.training.studies.real_songs` trains them."""

from dataclasses import dataclass, replace

from segue.training.fit.augmentation import AugmentationConfig
from segue.training.fit.loop import LoopConfig
from segue.training.fit.losses import DistillationConfig, LabelConfig
from segue.training.networks.build import SingleConfig
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig


@dataclass(frozen=True)
class Trained:
    """A network that learns from labels."""

    about: str
    network: SingleConfig
    loop: LoopConfig
    labels: LabelConfig = LabelConfig()
    all_labelled: bool = False  # Learn from the labelled songs outside the balanced set too.
    pretrain_epochs: int = 0  # Epochs of learning to predict the next segment of all songs first.


@dataclass(frozen=True)
class Joined:
    """Variants that answer as one."""

    about: str
    members: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)  # Added to the seed of each member.


@dataclass(frozen=True)
class Distilled:
    """A student that learns from what a variant says of songs it never saw."""

    about: str
    teacher: str
    network: DenseConfig
    loop: LoopConfig
    loss: DistillationConfig = DistillationConfig()
    unlabelled: bool = False  # Learn from songs without a label, and outside the balanced set, too.


Variant = Trained | Joined | Distilled

NOISE = AugmentationConfig(noise=0.2)
DENSE = LoopConfig(epochs=60, batch_songs=64, learning_rate=2e-3, weight_decay=5e-2)
FLATTENED = replace(DENSE, augmentation=NOISE)
CONVOLUTIONAL = LoopConfig(epochs=40, batch_songs=64, learning_rate=2e-3, weight_decay=5e-2, augmentation=NOISE)
RECURRENT = LoopConfig(epochs=30, batch_songs=64, learning_rate=1e-3, weight_decay=2e-2, augmentation=NOISE)

KL = DistillationConfig(match="kl")
HALF = DistillationConfig(match="kl", label_weight=0.5)
MOSTLY_LABELS = DistillationConfig(match="kl", label_weight=0.8)

FLAT = DenseConfig(look="flat", hidden=(828,), input_dropout=0.5, hidden_dropout=0.5)
POOLED = DenseConfig()
BN_RNN = RecurrentConfig(dropout=0.3)
SMALL = RecurrentConfig(state=128, bptt_steps=24, readout="pooled", dropout=0.3)
HYBRID = replace(SMALL, convolution=64, summary=True, hidden=(256,), dropout=0.5)

WEIGHTED = LabelConfig(class_weighting=1.0)
MORE = "chroma transposed, all labelled songs, classes weighted"


def transposed(loop: LoopConfig) -> LoopConfig:
    """Return the same training, but for the chroma of every window being turned by a random interval."""
    return replace(loop, augmentation=replace(loop.augmentation, transpose=True))


VARIANTS: dict[str, Variant] = {
    "flat": Trained("flat student shape, from labels", FLAT, FLATTENED),
    "pooled": Trained("pooled student shape, from labels", POOLED, DENSE),
    "mlp": Trained(
        "the study's baseline, 500-500-25",
        DenseConfig(look="flat", hidden=(500, 500, 25), input_dropout=0.3, hidden_dropout=0.163),
        FLATTENED,
    ),
    "conv-1": Trained("one convolution in time", ConvolutionalConfig(summary=False, hidden=()), CONVOLUTIONAL),
    "conv-2": Trained(
        "two convolutions in time", ConvolutionalConfig(channels=(128, 128), summary=False, hidden=()), CONVOLUTIONAL
    ),
    "conv-summary": Trained("one convolution with summary statistics", ConvolutionalConfig(), CONVOLUTIONAL),
    "bn-rnn": Trained("BN-RNN 341, last state, 8 steps: the study's", BN_RNN, RECURRENT),
    "rnn": Trained("the same without BN", replace(BN_RNN, norm="none"), RECURRENT),
    "ln-rnn": Trained("the same with layer norm", replace(BN_RNN, norm="layer"), RECURRENT),
    "bn-rnn-pooled": Trained("BN-RNN 128, readout of all states, 24 steps", SMALL, RECURRENT),
    "bn-gru-pooled": Trained("BN-GRU 128, readout of all states, 24 steps", replace(SMALL, cell="gru"), RECURRENT),
    "bn-lstm-pooled": Trained("BN-LSTM 128, readout of all states, 24 steps", replace(SMALL, cell="lstm"), RECURRENT),
    "conv-bn-rnn": Trained("convolution, then BN-RNN 128", replace(SMALL, convolution=64), RECURRENT),
    "hybrid": Trained("convolution, BN-RNN 128, summary statistics beside the states", HYBRID, RECURRENT),
    "pooled-noise": Trained("pooled, noise of 0.2 deviations on every segment", POOLED, FLATTENED),
    "pooled-transposed": Trained("pooled, chroma transposed", POOLED, transposed(DENSE)),
    "pooled-smoothed": Trained("pooled, labels smoothed by 0.1", POOLED, DENSE, LabelConfig(label_smoothing=0.1)),
    "pooled-all": Trained("pooled, all labelled songs", POOLED, DENSE, all_labelled=True),
    "pooled-all-weighted": Trained(
        "pooled, all labelled songs, classes weighted",
        POOLED,
        DENSE,
        WEIGHTED,
        all_labelled=True,
    ),
    "pooled-more": Trained(f"pooled, {MORE}", POOLED, transposed(DENSE), WEIGHTED, all_labelled=True),
    "conv-summary-more": Trained(
        f"one convolution with summary statistics, {MORE}",
        ConvolutionalConfig(),
        transposed(CONVOLUTIONAL),
        WEIGHTED,
        all_labelled=True,
    ),
    "hybrid-more": Trained(f"hybrid, {MORE}", HYBRID, transposed(RECURRENT), WEIGHTED, all_labelled=True),
    "bn-rnn-pretrained": Trained(
        "BN-RNN 128, all states, taught to predict the next segment first", SMALL, RECURRENT, pretrain_epochs=10
    ),
    "mixed": Joined("pooled, convolution with summary, hybrid", ("pooled", "conv-summary", "hybrid")),
    "three-pooled-more": Joined(f"three pooled, {MORE}", ("pooled-more",), (0, 100, 200)),
    "mixed-more": Joined(f"mixed, {MORE}", ("pooled-more", "conv-summary-more", "hybrid-more")),
    "flat-distilled": Distilled("flat, from the logits of mixed", "mixed", FLAT, FLATTENED),
    "flat-distilled-kl": Distilled("flat, from the probabilities of mixed", "mixed", FLAT, FLATTENED, KL),
    "flat-distilled-labels": Distilled("flat, half mixed, half labels", "mixed", FLAT, FLATTENED, HALF),
    "flat-distilled-mostly-labels": Distilled("flat, a fifth mixed", "mixed", FLAT, FLATTENED, MOSTLY_LABELS),
    "flat-distilled-unlabelled": Distilled(
        "flat, from mixed, on all other songs too", "mixed", FLAT, FLATTENED, unlabelled=True
    ),
    "pooled-distilled": Distilled("pooled, from the logits of mixed", "mixed", POOLED, DENSE),
    "pooled-distilled-kl": Distilled("pooled, from the probabilities of mixed", "mixed", POOLED, DENSE, KL),
    "pooled-distilled-labels": Distilled("pooled, half mixed, half labels", "mixed", POOLED, DENSE, HALF),
    "pooled-distilled-mostly-labels": Distilled("pooled, a fifth mixed", "mixed", POOLED, DENSE, MOSTLY_LABELS),
    "pooled-distilled-more": Distilled(
        "pooled, a fifth pooled-more, chroma transposed", "pooled-more", POOLED, transposed(DENSE), MOSTLY_LABELS
    ),
    "pooled-distilled-unlabelled": Distilled(
        "pooled, from mixed, on all other songs too", "mixed", POOLED, DENSE, unlabelled=True
    ),
}
