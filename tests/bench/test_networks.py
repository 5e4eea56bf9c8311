"""The eager teacher that the benchmarks compare with: it is the network that is exported, written as the study did."""

import numpy as np
import torch

from segue.bench.networks import EagerTeacher
from segue.export.parity import network_logits
from segue.training.networks.recurrent import RecurrentConfig
from tests.export.test_graphs import random_windows
from tests.support.plain_networks import random_network


def test_the_eager_teacher_is_the_teacher() -> None:
    network, windows = random_network(RecurrentConfig(state=6), n_classes=10), random_windows(8)
    weights = network.state_dict()
    eager = EagerTeacher(state=6)
    eager.load_state_dict(
        {
            "affine.weight": torch.cat([weights["input.weight"], weights["cell.recurrent.weight"]], dim=1),
            "affine.bias": torch.zeros(6),
            **{name.removeprefix("cell."): one for name, one in weights.items() if name.startswith("cell.norm")},
            **{name.removeprefix("head."): one for name, one in weights.items() if name.startswith("head.readout")},
        }
    )
    with torch.inference_mode():
        found = eager.eval()(network.standardise(torch.from_numpy(windows)))
    np.testing.assert_allclose(found.numpy(), network_logits(network, windows), atol=1e-4)
