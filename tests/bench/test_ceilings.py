"""The operations of a model are those of its matrix products, however they are written."""

import pytest

from segue.bench.ceilings import flop_per_window
from segue.export.graphs.build import graph_of
from segue.export.graphs.int8 import Int8
from segue.serving.bundle.manifest import Lowering
from segue.training.networks.dense import DenseConfig
from segue.training.networks.recurrent import RecurrentConfig
from tests.export.test_graphs import random_windows
from tests.support.plain_networks import random_network

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("lowering", ["scan", "unrolled", "operator"])
def test_a_recurrence_multiplies_at_every_step(lowering: Lowering) -> None:
    model = graph_of(random_network(RecurrentConfig(state=7), n_classes=3), CLASSES, lowering).SerializeToString()
    assert flop_per_window(model) == pytest.approx(2 * (120 * (25 + 7) * 7 + 7 * 3), rel=0.01)


def test_a_rounded_product_counts_as_one() -> None:
    network = random_network(DenseConfig(look="flat", hidden=(16,)), n_classes=3)
    exact = graph_of(network, CLASSES).SerializeToString()
    rounded = graph_of(network, CLASSES, int8=Int8("static", random_windows(64))).SerializeToString()
    assert flop_per_window(exact) == flop_per_window(rounded) == 2 * (3000 * 16 + 16 * 3)
