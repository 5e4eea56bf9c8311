"""A promise about the very catalogue that is scored: at least so many of its songs get the teacher's answer.

No labels are needed, and nothing is assumed of the songs. The student has seen all N songs of the catalogue, so their
doubts are known. A uniform sample of n songs, drawn without replacement, is shown to the teacher too and keeps the
teacher's answer. The dial is then the largest threshold at which a test on the sample passes.

**The test.** Call a song *bad* at a threshold if it is accepted there, was not sampled, and the teacher would say
another genre. The promise "at least `agree` of the N songs get the teacher's answer" is broken where more than
M = floor((1 - agree) N) songs are bad. Let x be the number of sampled songs that are accepted at the threshold and that
the two models disagree on. The threshold passes if

    P(H <= x) <= 1 - confidence,    H ~ Hypergeometric(N songs, M + 1 + x disagreements, n drawn).

**Why no correction for the search is needed.** Put the songs that the models disagree on in the order of their doubt.
Raising the threshold takes them one by one; each is either sampled (x grows) or not (the bad songs grow). Let X be the
number sampled before the (M + 1)-th that is not: the value of x where the promise breaks. X <= x exactly if at least
M + 1 of the first M + 1 + x disagreements are not sampled, and those are a fixed set of songs, so the probability of
that is the one above: the test asks whether x is small for a place where the promise breaks. Both counts only grow with
the threshold. If the largest threshold that passes is too high, its x is at least X, and the test, whose p-value grows
with x, would have passed at X too; that happens with probability at most 1 - confidence. Ties of doubt are taken
together, which only adds to both counts.

The hypergeometric test without the bonus (M + 1 instead of M + 1 + x) is the usual one, for instance in risk-limiting
audits; the bonus is what the sampled songs, which cannot be bad, are worth.
"""

from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

from segue.data.song import Ints
from segue.errors import ConfigError
from segue.serving.ladder import ASK_ALL_NATS

Bools = NDArray[np.bool_]
# What the sample size is planned with; a catalogue that is not so costs songs, never the promise.
DISAGREE_AT_THRESHOLD, ACCEPTED = 0.25, 0.5
LEAST_EXPECTED = 5  # Disagreements in the sample: with fewer, hardly any threshold can pass.


@dataclass(frozen=True)
class Agreement:
    """What is promised about a catalogue, and from what."""

    agree: float  # At least this share of the songs gets the teacher's answer ...
    confidence: float  # ... with this confidence over the draw of the sample.
    songs: int  # In the catalogue, readable or not.
    sampled: int
    disagreements: int  # Sampled songs that are accepted at the threshold, though the teacher says another genre.
    threshold_nats: float

    def holds(self, rejected: int) -> bool:
        """Tell whether the promise may be made about the songs that were not rejected.

        How many songs of a catalogue cannot be read is no matter of chance, so the test may be made once that is known.
        """
        allowed = allowed_disagreements(self.songs - rejected, self.agree)
        return self.disagreements <= most_disagreements(self.songs, self.sampled, allowed, self.confidence)

    def __str__(self) -> str:
        return (
            f"at least {self.agree:.1%} of these {self.songs:,} songs get the teacher's answer, with "
            f"{self.confidence:.0%} confidence, from {self.sampled:,} songs shown to both models"
        )


def sample_rows(songs: int, sampled: int, seed: int) -> Ints:
    """Return the rows of a uniform sample without replacement, in rising order."""
    rows: Ints = np.sort(np.random.default_rng(seed).choice(songs, size=sampled, replace=False))
    return rows


def allowed_disagreements(songs: int, agree: float) -> int:
    """Return M: how many of the songs may get another answer than the teacher's."""
    return floor(round((1 - agree) * songs, 6))  # Not 19 of 1,000 at 0.98, where floats say 19.999999999.


def most_disagreements(songs: int, sampled: int, allowed: int, confidence: float) -> int:
    """Return the largest x at which the test of the module passes with M = `allowed`; -1 if not even x = 0 does."""
    most, low, high = -1, 0, sampled
    while low <= high:  # The p-value grows with x.
        x = (low + high) // 2
        total = allowed + 1 + x
        if total > songs or hypergeom.cdf(x, songs, total, sampled) <= 1 - confidence:
            most, low = x, x + 1
        else:
            high = x - 1
    return most


def agreed_threshold(
    doubt_nats: NDArray[np.float64], disagree: Bools, *, songs: int, agree: float, confidence: float, rejected: int = 0
) -> Agreement:
    """Return the largest threshold at which the promise may be made.

    Args:
        doubt_nats: (n,) the student's doubts of the sampled songs. A NaN falls back at every threshold.
        disagree: (n,) whether the teacher says another genre.
        songs: N, the size of the catalogue, with the songs that cannot be read.
        agree: the share of the catalogue that must get the teacher's answer.
        confidence: of the promise.
        rejected: sampled songs that cannot be read, besides the n. Some more are expected among the others, and the
            threshold leaves room for them; see `Agreement.holds`.

    Raises:
        ConfigError: a share or confidence outside (0, 1).
    """
    check_promise(agree, confidence)
    sampled = len(doubt_nats) + rejected
    room = songs * (rejected + 3) // sampled if rejected else 0
    bad = np.sort(doubt_nats[disagree & ~np.isnan(doubt_nats)])
    most = most_disagreements(songs, sampled, allowed_disagreements(max(songs - room, 0), agree), confidence)
    if most < 0:
        threshold = ASK_ALL_NATS
    elif most >= len(bad):
        threshold = np.inf
    else:  # Just below the doubt of the first disagreement that is one too many.
        threshold = float(np.nextafter(bad[most], -np.inf))
    accepted = int((bad <= threshold).sum())
    return Agreement(agree, confidence, songs, sampled, accepted, threshold)


def check_promise(agree: float, confidence: float) -> None:
    """Refuse a share or a confidence that no sample can give."""
    for name, value in (("agree", agree), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}: expected a share between 0 and 1, found {value:g}")


def best_sample_size(songs: int, agree: float, confidence: float) -> int:
    """Return how many songs to show to both models, so that the teacher sees about as few songs as possible in all.

    A larger sample costs its own songs, about half of which would not have fallen back, but leaves a smaller margin:
    the number of accepted disagreements is estimated with a standard error of N sqrt(e (1 - e) / n), e = 1 - agree.
    Each disagreement that the margin forbids sends four songs back to the teacher, if a quarter of the songs near the
    threshold disagree. The sum of both is least at the size returned.
    """
    error = 1 - agree
    margin = norm.ppf(confidence) * songs * np.sqrt(error * agree) / DISAGREE_AT_THRESHOLD
    size = max((margin / (2 * ACCEPTED)) ** (2 / 3), LEAST_EXPECTED / error)
    return int(min(songs, np.ceil(size)))
