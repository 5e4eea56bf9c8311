"""Curricula: songs by their cross-entropy, from easy to hard or the other way, in levels."""

from dataclasses import replace

from segue.training.networks.dense import DenseConfig
from segue.training.studies.curricula import Curriculum, CurriculumFit, Order
from segue.training.studies.protocol import MLP, MLP_LOOP
from segue.training.studies.study import Cell, Claim, Scale, Study, grid

BATCHES = 800  # Of the original's 40,000 songs; steps count in them, and shrink with the songs.
RUNS = {
    "step 50": Curriculum(),
    "step 50, in order": Curriculum(shuffle=False),
    "step 50, kept": Curriculum(keep=True),
    "step 50, kept, in order": Curriculum(keep=True, shuffle=False),
    "step 50, kept, 3 repetitions": Curriculum(keep=True, repetitions=3),
    "step 5, kept": Curriculum(step=5, keep=True),
    "by hand": Curriculum(by_hand=(0.5, 0.8, 0.95, 1.0), keep=True, repetitions=8),
    "self-paced": Curriculum(keep=True, advance="self-paced"),
    "reversed, step 50": Curriculum(keep=True, reverse=True, repetitions=7),
    "reversed, step 5": Curriculum(step=5, keep=True, reverse=True, repetitions=4),
    "step 50, kept, no dropout": Curriculum(keep=True),
}


def cells(scale: Scale) -> list[Cell]:
    """Return the network without a curriculum, which orders the songs, and the eleven runs."""
    network, loop = scale.network(MLP), scale.loop(MLP_LOOP)
    assert isinstance(network, DenseConfig)
    batches = max(1, scale.n_train // loop.batch_songs)
    runs = {}
    for name in scale.some(list(RUNS), 4):
        curriculum = RUNS[name]
        step = max(1, round(curriculum.step * batches / BATCHES))
        most = 3 if scale.quick else curriculum.most_repetitions
        times = 1 if scale.quick else curriculum.repetitions
        changed = replace(curriculum, step=step, repetitions=times, most_repetitions=most)
        bare = replace(network, input_dropout=0.0, hidden_dropout=0.0)
        runs[name] = CurriculumFit(bare if "no dropout" in name else network, loop, changed)
    order = Order(CurriculumFit(network, loop, Curriculum()))
    return [*grid(scale, {"no curriculum": order}), *grid(scale, runs, wave=1)]


STUDY = Study(
    title="Curricula: from easy songs to hard ones, and back",
    varies="step (batches a level adds, of 800), repetitions (epochs a level), earlier levels kept or not, order "
    "within a "
    "level, direction, next level by count, by hand or self-paced (once the validation error rises)",
    fixed="the baseline, ordered by its own cross-entropy after 35 epochs; batch 50, Adam 1e-4. The original's "
    "eleven runs "
    "are known by their findings only; these eleven are in their spirit",
    original="no gain in eleven runs: easy to hard 43 to 46 %, falling when the hardest songs come; hard to easy 46 "
    "% (step "
    "50) and 49 % (step 5); clearly worse without dropout; cross-entropy 0.769 in the mean, variance 0.962",
    cells=cells,
    claims=(
        Claim("no curriculum", "step 50, kept", "No curriculum from easy to hard beats random order"),
        Claim("no curriculum", "reversed, step 5", "Hard to easy does not beat random order either"),
        Claim("reversed, step 5", "step 50", "Hard to easy is the best curriculum"),
        Claim("step 50, kept", "step 50, kept, no dropout", "Without dropout it is worse"),
    ),
)
