"""Steps that are recorded as a graph are the steps that are taken one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from segue.data.table import SongTable
from segue.training.fit.feed import open_feed
from segue.training.fit.loop import EpochTrainer, LoopConfig
from segue.training.fit.losses import DistillationConfig, DistillationLoss, LabelConfig, LabelLoss, Loss, Targets
from segue.training.fit.optimisers import Optimiser, OptimiserName
from segue.training.networks.build import SingleConfig, build
from segue.training.networks.convolutional import ConvolutionalConfig
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from segue.training.networks.standardise import Standardise

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ROWS = np.arange(110)  # In batches of 37, 37 and 36: two graphs.
NETWORKS: dict[str, SingleConfig] = {
    "rnn": RecurrentConfig(norm="none", state=16, bptt_steps=4),
    "bn-rnn": RecurrentConfig(state=16, bptt_steps=8, readout="pooled", dropout=0.0),
    "gru": RecurrentConfig(cell="gru", norm="layer", state=16, bptt_steps=24, convolution=8),
    "lstm": RecurrentConfig(cell="lstm", state=16, bptt_steps=24, summary=True),
    "convolutional": ConvolutionalConfig(),
    "dense": DenseConfig(hidden=(32,)),
}


def losses(songs: SongTable) -> dict[str, Loss]:
    """Return a loss of each kind."""
    return {
        "labels": LabelLoss(LabelConfig(class_weighting=0.5, label_smoothing=0.1), songs.labels[ROWS], 4),
        "teacher": DistillationLoss(
            DistillationConfig(match="kl", label_weight=0.3, class_weighting=0.5), songs.labels[ROWS], 4
        ),
    }


def weights_after(
    songs: SongTable, network: SingleConfig, loss: str, optimiser: OptimiserName, monkeypatch: pytest.MonkeyPatch,
    *, recorded: bool, compiled: bool = False,
) -> tuple[list[float], np.ndarray]:  # fmt: skip
    """Return the losses of three epochs on the GPU and the weights after them."""
    monkeypatch.setattr(Optimiser, "is_recordable", recorded)
    device = torch.device("cuda")
    torch.manual_seed(0)
    made = build(network, 4, Standardise.of(songs, ROWS)).to(device)
    if compiled:
        made.compile_parts()
    logits = torch.randn((len(ROWS), 4), generator=torch.Generator().manual_seed(1))
    lesson = EpochTrainer(
        "graph", ROWS, songs.lengths[ROWS], Targets(torch.from_numpy(songs.labels[ROWS]), logits).to(device),
        open_feed(songs, device), losses(songs)[loss], LoopConfig(batch_songs=37, epochs=3, optimiser=optimiser),
    )  # fmt: skip
    steps = lesson.steps(made, Optimiser(optimiser, made.parameters(), 1e-3))
    costs = [lesson.learn(steps, epoch, tqdm(disable=True)).loss for epoch in (1, 2, 3)]
    return costs, torch.cat([weight.detach().flatten() for weight in made.parameters()]).cpu().numpy()


@needs_gpu
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("loss", "optimiser"), [("labels", "adamw"), ("teacher", "adam"), ("labels", "sgd")])
def test_a_graph_learns_what_single_steps_learn(
    synthetic_songs: Path, network: str, loss: str, optimiser: OptimiserName, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = SongTable(synthetic_songs)
    expected, weights = weights_after(songs, NETWORKS[network], loss, optimiser, monkeypatch, recorded=False)
    found, recorded = weights_after(songs, NETWORKS[network], loss, optimiser, monkeypatch, recorded=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(recorded, weights, atol=5e-3)
    assert found[-1] < found[0]


@needs_gpu
def test_what_a_graph_drops_out_is_drawn_anew(synthetic_songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = SongTable(synthetic_songs)
    device = torch.device("cuda")
    network = build(DenseConfig(hidden=(32,), hidden_dropout=0.5), 4, Standardise.of(songs, ROWS)).to(device)
    lesson = EpochTrainer(
        "graph", ROWS, songs.lengths[ROWS], Targets(torch.from_numpy(songs.labels[ROWS])).to(device),
        open_feed(songs, device), losses(songs)["labels"],
        LoopConfig(batch_songs=110, schedule="constant", learning_rate=1e-12, weight_decay=0.0, epochs=9),
        shuffle=False,
    )  # fmt: skip
    steps = lesson.steps(network, Optimiser("adamw", network.parameters(), 0.0))
    costs = [lesson.learn(steps, epoch, tqdm(disable=True)).loss for epoch in range(1, 9)]
    assert len(set(costs)) == 8  # The weights stand still, so only what is dropped out differs.


@needs_gpu
def test_a_compiled_part_goes_into_a_graph(synthetic_songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs, network = SongTable(synthetic_songs), NETWORKS["gru"]
    expected, _ = weights_after(songs, network, "labels", "adamw", monkeypatch, recorded=False)
    found, _ = weights_after(songs, network, "labels", "adamw", monkeypatch, recorded=True, compiled=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
