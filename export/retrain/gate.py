"""The gate: a challenger takes the champion's place only where it is better beyond chance, and no floor is broken.

Both answer the same held-out songs, which neither has seen in training. The challenger must be right on more of them by
an exact McNemar test over songs and by a bootstrap over artists, since songs of an artist are right and wrong together.
So of challengers that are no better than their champion at most `alpha` are published. Floors hold what a gain in
accuracy could hide: recall of every class, calibration, cost at equal accuracy, parity, size.

McNemar, *Psychometrika* 12, 1947; its power, Connor, *Biometrics* 43, 1987; bootstrap over clusters, Field and Welsh,
*JRSS B* 69, 2007.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segue.data.metrics import ece
from segue.data.song import Bools, Ints
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError, LabelError
from segue.export.retrain.answered import Answered, ask
from segue.serving.bundle.load import Bundle
from segue.serving.bundle.manifest import Form, TradeoffRow
from segue.serving.bundle.seen import were_seen
from segue.serving.tables import check_units

POWER = 0.8  # With which a gain of `worth_points` would be told by the number of songs that a verdict names.


@dataclass(frozen=True)
class GateRules:
    """What a challenger must show; the table `[gate]` of a recipe."""

    alpha: float = 0.05  # Chance to publish a challenger that is no better than the champion.
    worth_points: float = 2.0  # The gain in points (0.01) of accuracy that the held-out songs should be able to tell.
    when_too_few: Literal["keep", "publish"] = "keep"  # Where they cannot: the champion stays, or any gain will do.
    recall_points: float = 10.0  # Most points of recall that a class may lose, where the loss is beyond chance.
    ece_rise: float = 0.05  # Most that the calibration error may rise.
    cost_factor: float = 1.5  # Most microseconds a song at the champion's accuracy, over the champion's.
    parity_agreement: float = 0.98  # Least share of songs on which the graphs agree with the trained networks.
    size_factor: float = 2.0  # Most bytes of the models, over the champion's.
    resamples: int = 2000  # Of the artists.
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse rules that no challenger can be judged by."""
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"gate.alpha: expected a chance between 0 and 0.5, found {self.alpha}")
        for name in ("worth_points", "recall_points", "ece_rise", "cost_factor", "size_factor", "resamples"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"gate.{name}: expected a number above 0, found {getattr(self, name)}")
        if not 0 <= self.parity_agreement <= 1:
            raise ConfigError(f"gate.parity_agreement: expected a share from 0 to 1, found {self.parity_agreement}")


@dataclass(frozen=True)
class Gain:
    """What the held-out songs say about the difference in accuracy."""

    songs: int
    artists: int | None  # None: not known, and every song stands for itself.
    champion_accuracy: float
    challenger_accuracy: float
    only_champion: int  # Songs that only the champion gets right.
    only_challenger: int
    p_value: float  # Exact, one-sided McNemar: how likely so many, were the challenger no better.
    points_between: tuple[float, float]  # Bootstrap over artists; the gain is below each end with a chance of alpha.
    resampled_points: tuple[float, ...]  # The gain in each bootstrap.
    songs_to_tell: int  # That would tell a gain of `worth_points` with a power of 80 %.

    @property
    def points(self) -> float:
        """The gain in points (0.01) of accuracy."""
        return 100 * (self.challenger_accuracy - self.champion_accuracy)

    def is_real(self, alpha: float) -> bool:
        """Whether both tests say that the challenger is better."""
        return self.p_value <= alpha and self.points_between[0] > 0

    def __str__(self) -> str:
        low, high = self.points_between
        of = "" if self.artists is None else f" of {self.artists:,} artists"
        p_value = "< 0.0001" if self.p_value < 1e-4 else f"= {self.p_value:.2g}"
        return (
            f"{self.points:+.1f} points on {self.songs:,} held-out songs{of} (champion {self.champion_accuracy:.3f}, "
            f"challenger {self.challenger_accuracy:.3f}; between {low:+.1f} and {high:+.1f}; "
            f"McNemar p {p_value}: {self.only_challenger} songs won, {self.only_champion} lost)"
        )


@dataclass(frozen=True)
class Floor:
    """One floor, and whether the challenger stands above it."""

    name: str
    champion: str
    challenger: str
    limit: str
    held: bool


@dataclass(frozen=True)
class Recall:
    """Recall of a class, of both."""

    genre: str
    songs: int
    champion: float
    challenger: float
    lost_beyond_chance: bool  # By an exact McNemar test within the class, corrected for the number of classes.


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and why."""

    publish: bool
    reason: str
    gain: Gain
    floors: tuple[Floor, ...]
    recalls: tuple[Recall, ...]
    tradeoffs: tuple[tuple[TradeoffRow, ...], tuple[TradeoffRow, ...]]  # Of champion and challenger, on these songs.
    champion: str  # Version.
    challenger: str

    def __str__(self) -> str:
        lines = [
            f"  {'held' if floor.held else 'BROKEN':<7} {floor.name}: {floor.challenger} (champion {floor.champion}, "
            f"limit {floor.limit})"
            for floor in self.floors
        ]
        return "\n".join([f"{'published' if self.publish else 'rejected'}: {self.reason}", *lines])


def judge(champion: Bundle, challenger: Bundle, songs: SongTable, rules: GateRules) -> Verdict:
    """Compare two bundles on the songs of a table that neither has seen.

    Raises:
        ConfigError: they are for songs in other units.
        LabelError: the table has no labelled song that neither has seen.
    """
    for bundle in (champion, challenger):
        check_units(songs, bundle)
    rows = held_out_rows(songs, (champion, challenger))
    sides = ask((champion, challenger), songs, rows)
    return verdict(sides, [songs.groups[row] for row in rows], rules)


def held_out_rows(songs: SongTable, bundles: Sequence[Bundle]) -> Ints:
    """Return the rows of labelled songs that none of the bundles has seen in training."""
    rows = np.flatnonzero(songs.labels != NO_LABEL)
    seen = np.zeros(len(rows), dtype=bool)
    for bundle in bundles:
        seen |= were_seen(bundle, [songs.song_ids[row] for row in rows])
    if seen.all():
        raise LabelError(
            f"{songs.path}: expected labelled songs that neither champion nor challenger has seen in training, found "
            f"none among {len(rows):,} labelled ones. Hold some out of every training, as the recipe's [test] table."
        )
    return rows[~seen]


def verdict(sides: tuple[Answered, Answered], artists: Sequence[str | None], rules: GateRules) -> Verdict:
    """Judge by what champion and challenger answered; `artists` (n,) of the same songs."""
    champion, challenger = sides
    gain = gain_of(champion.right, challenger.right, artists, rules)
    recalls = _recalls(champion, challenger, rules)
    floors = _floors(champion, challenger, recalls, rules)
    broken = [floor for floor in floors if not floor.held]
    unsure = gain.songs < gain.songs_to_tell
    publish = not broken and (
        gain.is_real(rules.alpha) or (unsure and rules.when_too_few == "publish" and gain.points > 0)
    )
    return Verdict(
        publish,
        _reason(gain, broken, unsure, rules),
        gain,
        floors,
        recalls,
        (champion.tradeoff, challenger.tradeoff),
        champion.version,
        challenger.version,
    )


def _reason(gain: Gain, broken: Sequence[Floor], unsure: bool, rules: GateRules) -> str:
    if broken:
        what = "; ".join(f"{one.name} {one.challenger} (champion {one.champion}, limit {one.limit})" for one in broken)
        return f"a floor is broken: {what}. Accuracy: {gain}"
    if gain.is_real(rules.alpha):
        return f"better: {gain}"
    if unsure:
        rule = "the champion stays" if rules.when_too_few == "keep" or gain.points <= 0 else "the rule says: publish"
        return (
            f"too few held-out songs to tell, so {rule}: {gain.songs_to_tell:,} would tell a gain of "
            f"{rules.worth_points:g} points. Found {gain}"
        )
    return f"{'worse' if gain.points_between[1] < 0 else 'not better beyond chance'}: {gain}"


def gain_of(champion_right: Bools, challenger_right: Bools, artists: Sequence[str | None], rules: GateRules) -> Gain:
    """Return the gain in accuracy from which songs (n,) each gets right; songs without an artist stand alone."""
    n = len(champion_right)
    won = int((challenger_right & ~champion_right).sum())
    lost = int((champion_right & ~challenger_right).sum())
    p_value = float(stats.binomtest(won, won + lost, 0.5, alternative="greater").pvalue) if won + lost else 1.0
    known = any(artist is not None for artist in artists)
    names = [artist if artist is not None else f"\0{row}" for row, artist in enumerate(artists)]
    difference = challenger_right.astype(np.int64) - champion_right
    means = bootstrap_means(difference, names, rules.resamples, rules.seed)
    low, high = (100 * float(edge) for edge in np.quantile(means, (rules.alpha, 1 - rules.alpha)))
    return Gain(
        songs=n,
        artists=len(set(names)) if known else None,
        champion_accuracy=float(champion_right.mean()),
        challenger_accuracy=float(challenger_right.mean()),
        only_champion=lost,
        only_challenger=won,
        p_value=p_value,
        points_between=(low, high),
        resampled_points=tuple((100 * means).tolist()),
        songs_to_tell=_songs_to_tell(difference, float(means.var()), rules),
    )


def bootstrap_means(values: Ints, clusters: Sequence[str], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the mean of `values` (n,) over each resample of their clusters, (resamples,)."""
    number = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)[1]
    sums, sizes = np.bincount(number, weights=values), np.bincount(number)
    k = len(sizes)
    draws = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=resamples)
    means: NDArray[np.float64] = (draws @ sums) / (draws @ sizes)
    return means


def _songs_to_tell(difference: Ints, clustered_variance: float, rules: GateRules) -> int:
    """Return how many such songs tell a gain of `worth_points`, were so many of them answered differently."""
    n, gain = len(difference), rules.worth_points / 100
    differing = max(float((difference != 0).mean()), gain, 1 / n)
    z_alpha, z_power = stats.norm.ppf(1 - rules.alpha), stats.norm.ppf(POWER)
    alone = ((z_alpha * differing**0.5 + z_power * (differing - gain**2) ** 0.5) / gain) ** 2
    song_variance = float(difference.var()) / n
    inflation = clustered_variance / song_variance if song_variance else 1.0  # By songs of an artist being alike.
    return int(np.ceil(alone * max(inflation, 1.0)))


def _recalls(champion: Answered, challenger: Answered, rules: GateRules) -> tuple[Recall, ...]:
    present = np.unique(champion.labels)
    found = []
    for label in present:
        of_class = champion.labels == label
        before, after = champion.right[of_class], challenger.right[of_class]
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        p_value = stats.binomtest(lost, lost + won, 0.5, alternative="greater").pvalue if lost + won else 1.0
        found.append(
            Recall(
                champion.classes[label],
                int(of_class.sum()),
                float(before.mean()),
                float(after.mean()),
                bool(p_value <= rules.alpha / len(present)),
            )
        )
    return tuple(found)


def _floors(champion: Answered, challenger: Answered, recalls: Sequence[Recall], rules: GateRules) -> tuple[Floor, ...]:
    floors = []
    worst = max(recalls, key=lambda one: (one.lost_beyond_chance, one.champion - one.challenger))
    limit = worst.champion - rules.recall_points / 100
    floors.append(
        Floor(
            f"recall of {worst.genre}",
            f"{worst.champion:.3f}",
            f"{worst.challenger:.3f}",
            f"{max(limit, 0):.3f}",
            not (worst.lost_beyond_chance and worst.challenger < limit),
        )
    )
    errors = [ece(one.probs, one.labels) for one in (champion, challenger)]
    floors.append(
        Floor(
            "calibration error",
            f"{errors[0]:.3f}",
            f"{errors[1]:.3f}",
            f"{errors[0] + rules.ece_rise:.3f}",
            errors[1] <= errors[0] + rules.ece_rise,
        )
    )
    cost, cost_limit = challenger.cost_at(float(champion.right.mean())), rules.cost_factor * champion.us_per_song
    floors.append(
        Floor(
            "cost at equal accuracy",
            f"{champion.us_per_song:.0f} us a song",
            "does not reach it" if cost is None else f"{cost:.0f} us a song",
            f"{cost_limit:.0f} us",
            cost is None or cost <= cost_limit,  # One that does not reach it is no better, and fails for that.
        )
    )
    parity = [min(map(_agreement, one.forms)) for one in (champion, challenger)]
    floors.append(
        Floor(
            "parity of the graphs",
            f"{parity[0]:.3f}",
            f"{parity[1]:.3f}",
            f"{rules.parity_agreement:.3f}",
            parity[1] >= rules.parity_agreement,
        )
    )
    floors.append(
        Floor(
            "size of the models",
            f"{champion.bytes / 1e6:.2f} MB",
            f"{challenger.bytes / 1e6:.2f} MB",
            f"{rules.size_factor * champion.bytes / 1e6:.2f} MB",
            challenger.bytes <= rules.size_factor * champion.bytes,
        )
    )
    return tuple(floors)


def _agreement(form: Form) -> float:
    if form.parity:
        return form.parity.agreement
    return form.rounding.agreement if form.rounding else 0.0
