"""Feature blocks: what timbre, chroma and loudness are worth, alone, left out and permuted, by class."""

from dataclasses import replace

from segue.data.describe.description import BLOCKS
from segue.training.studies.fits import LabelFit
from segue.training.studies.protocol import LOOP, RNN
from segue.training.studies.study import Cell, Claim, Found, Scale, Study, grid


def cells(scale: Scale) -> list[Cell]:
    """Return a recurrence that sees all blocks, one alone, or all but one."""
    network = scale.network(replace(RNN, norm="batch", bptt_steps=8))
    loop, names = scale.loop(replace(LOOP, epochs=50)), tuple(BLOCKS)
    seen = {"all": names, **{f"{one} alone": (one,) for one in names}}
    seen |= {f"without {one}": tuple(other for other in names if other != one) for one in names}
    return grid(
        scale, {name: LabelFit(network, loop, blocks=kept, by_class=name == "all") for name, kept in seen.items()}
    )


def words(found: Found) -> list[str]:
    """Tell by class what permuting a block loses."""
    one, told = found.outcomes["all"][0], []
    for block in BLOCKS:
        head = f"{block} permuted: "
        lost = {name.removeprefix(head): value for name, value in one.figures.items() if name.startswith(head)}
        most = sorted(lost, key=lambda name: -lost[name])[:3]
        told.append(
            f"{block} permuted loses {100 * one.figures[f'{block} permuted, all']:.1f} points; most of "
            + ", ".join(f"{name} ({100 * lost[name]:.0f})" for name in most)
        )
    return told


STUDY = Study(
    title="Which block of features matters, and for which genre",
    varies="what the network sees: timbre, chroma and loudness, each alone and each left out; and each permuted over "
    "songs",
    fixed="BN-RNN 341, n = 8, Adam 1e-4, batch 50, 50 epochs",
    original="left open",
    cells=cells,
    claims=(
        Claim("timbre alone", "chroma alone", "Timbre tells more than chroma"),
        Claim("all", "timbre alone", "Chroma and loudness add to timbre"),
    ),
    words=words,
    pictures=("bars", "curves"),
)
