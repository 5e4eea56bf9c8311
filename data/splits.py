"""Splits of labelled songs: every class in its share everywhere, and no artist on two sides.

Needs scikit-learn, which training installs.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from segue.data.joined import JoinedSongs
from segue.data.song import Ints
from segue.data.table import NO_LABEL, SongTable
from segue.errors import ConfigError, LabelError

log = logging.getLogger(__name__)

PARTS = ("validation", "calibration", "test", "train")
TRAIN = PARTS.index("train")
HANDS = 20  # Shares that are multiples of 5 % are dealt as so many equal hands.


@dataclass(frozen=True)
class Shares:
    """Which share of the labelled songs goes where; what is left trains."""

    validation: float = 0.1  # Share of the songs that picks the best epoch.
    calibration: float = 0.2  # Share that sets temperatures and the threshold; no model trains on it. 0: no bundle.
    test: float = 0.0  # Share kept for the figures in the bundle; 0 where a table of test songs stands apart.
    # Largest share of one class among the songs that validate, calibrate and test, as it is among the songs to come;
    # those beyond it are left out. 1: as they are dealt.
    largest_class: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on, and a largest class without songs."""
        if not (min(self.kept_apart) >= 0 and round(sum(self.kept_apart), 9) <= 0.9):
            raise ConfigError(f"expected shares of at least 0 that leave at least 0.1 to train on; found {self}")
        if not 0 < self.largest_class <= 1:
            raise ConfigError(f"largest_class: expected a share above 0, up to 1, found {self.largest_class}")

    @property
    def kept_apart(self) -> tuple[float, float, float]:
        """The shares that do not train: validation, calibration, test."""
        return self.validation, self.calibration, self.test

    def in_hands(self) -> bool:
        """Tell whether every share is a whole number of hands."""
        return all(abs(share * HANDS - round(share * HANDS)) < 1e-6 for share in self.kept_apart)


@dataclass(frozen=True)
class Splits:
    """Rows of a song table by purpose, each in ascending order."""

    train: Ints
    validation: Ints
    calibration: Ints
    test: Ints


def split(songs: SongTable, shares: Shares, seed: int) -> Splits:
    """Deal the labelled songs of a table to train, validation, calibration and test.

    Songs whose split the table says are for just that, and its share is not dealt again; the others, and those for
    training, are dealt. Of `JoinedSongs`, the second table validates, whatever the share for that, and the first is
    dealt. Dealt songs of a class beyond `shares.largest_class` are in no split: their artists are measured on, so they
    must not train.

    Raises:
        LabelError: there are fewer than two classes or too few songs, or the table names another split.
    """
    if isinstance(songs, JoinedSongs):
        return _around(songs, shares, seed)
    rows = labelled_rows(songs)
    odd = next((name for name in songs.classes if "\t" in name), None)
    if odd is not None:
        raise LabelError(
            f"{songs.path}: expected classes without tabs, which stand between them in a model; found {odd!r}"
        )
    part_of = _stated(songs, rows)
    stated = set(part_of.tolist()) - {TRAIN}
    open_rows = part_of == TRAIN
    left = replace(shares, **{PARTS[part]: 0.0 for part in stated})
    part_of[open_rows] = _dealt(songs, rows[open_rows], left, seed)
    splits = Splits(**{name: rows[part_of == part] for part, name in enumerate(PARTS)})
    dealt = {
        name: _without_surplus(songs, vars(splits)[name], shares.largest_class, seed)
        for part, name in enumerate(PARTS)
        if part not in stated | {TRAIN}
    }
    splits = replace(splits, **dealt)
    if stated:
        _warn_of_shared_artists(songs, splits)
    _warn_of_rare_classes(songs, splits)
    return splits


def _stated(songs: SongTable, rows: Ints) -> Ints:
    """Return the part that the table says each of `rows` is for, a place in `PARTS`; `TRAIN` where it does not say."""
    stated = [songs.splits[row] or PARTS[TRAIN] for row in rows]
    unknown = sorted(set(stated) - set(PARTS))
    if unknown:
        raise LabelError(f"{songs.path}: expected splits {', '.join(PARTS)}, found {', '.join(unknown)}")
    return np.array([PARTS.index(name) for name in stated], dtype=np.int64)


def _dealt(songs: SongTable, rows: Ints, shares: Shares, seed: int) -> Ints:
    """Return the part of each of `rows`, a place in `PARTS`, in the shares asked for."""
    wanted = shares.kept_apart
    if not any(wanted):
        return np.full(len(rows), TRAIN)
    if shares.in_hands():
        ends = np.cumsum([round(share * HANDS) for share in wanted])
        return np.searchsorted(ends, deal(songs, rows, HANDS, seed), side="right")
    return deal_shares(songs, rows, (*wanted, 1 - sum(wanted)), seed)


def _without_surplus(songs: SongTable, rows: Ints, largest_class: float, seed: int) -> Ints:
    """Return `rows` without so many songs of the largest classes, drawn at random, that none has a larger share."""
    drawn = np.random.default_rng(seed).permutation(rows)
    counts = np.bincount(songs.labels[rows], minlength=len(songs.classes))
    most = counts.max(initial=0)
    while most > largest_class * np.minimum(counts, most).sum():
        most -= 1
    if len(rows) and not most:
        raise LabelError(
            f"{songs.path}: expected classes of which none needs more than {largest_class:g} of the songs "
            f"(largest_class), found {np.count_nonzero(counts)} classes"
        )
    kept = [drawn[songs.labels[drawn] == label][:most] for label in range(len(counts))]
    return np.sort(np.concatenate(kept))


def deal_shares(songs: SongTable, rows: Ints, shares: Sequence[float], seed: int) -> Ints:
    """Return the part (0 .. len(shares) - 1) of each of `rows`, in any shares: stratified, groups kept together.

    Group by group, the largest first, each goes to the part that is short of most songs of its classes. Groups of one
    size come in random order.
    """
    labels, rng = songs.labels[rows], np.random.default_rng(seed)
    numbers = _group_numbers([songs.groups[row] for row in rows])
    groups = np.arange(len(rows)) if numbers is None else np.unique(numbers, return_inverse=True)[1]
    counts = np.zeros((groups.max() + 1, len(songs.classes)))
    np.add.at(counts, (groups, labels), 1)
    of_class = counts.sum(axis=0)
    missing, weight = np.outer(shares, of_class), 1 / np.maximum(of_class, 1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    part_of_group = np.empty(len(counts), dtype=np.int64)
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    for group in order:
        part = open_parts[int((missing[open_parts] @ (counts[group] * weight)).argmax())]
        part_of_group[group] = part
        missing[part] -= counts[group]
    part_of: Ints = part_of_group[groups]
    return part_of


def _around(songs: JoinedSongs, shares: Shares, seed: int) -> Splits:
    """Deal the first table, and let the labelled songs of the second validate."""
    validation = songs.second_rows[songs.labels[songs.second_rows] != NO_LABEL]
    if not len(validation):
        raise LabelError(f"{songs.second_path}: expected validation songs with labels, found none")
    shared = {songs.groups[row] for row in validation} & set(songs.groups[: songs.second_rows[0]]) - {None}
    if shared:
        log.warning(
            "%s: %d artists are in %s too; the validation accuracy will be too good", songs.second_path, len(shared),
            songs.path,
        )  # fmt: skip
    dealt = split(SongTable(songs.path), replace(shares, validation=0.0), seed)
    return replace(dealt, validation=validation)


def _warn_of_shared_artists(songs: SongTable, splits: Splits) -> None:
    """Log how many artists the table's own splits have on two sides."""
    sides = [{songs.groups[row] for row in rows} - {None} for rows in vars(splits).values()]
    shared = sum(len(side) for side in sides) - len(set().union(*sides))
    if shared:
        log.warning("%s: %d artists are in two splits; what is measured there will be too good", songs.path, shared)


def _warn_of_rare_classes(songs: SongTable, splits: Splits) -> None:
    """Log every class that some split lacks."""
    counts = np.bincount(songs.labels[songs.labels != NO_LABEL], minlength=len(songs.classes))
    for name, rows in vars(splits).items():
        missing = np.flatnonzero((counts > 0) & ~np.isin(np.arange(len(counts)), songs.labels[rows]))
        if len(rows) and len(missing):
            which = ", ".join(f"{songs.classes[label]} ({counts[label]} songs)" for label in missing)
            log.warning("%s: too rare to split, none in %s: %s", songs.path, name, which)


def labelled_rows(songs: SongTable) -> Ints:
    """Return the rows that have a label; fewer than two classes among them are a `LabelError`."""
    rows = np.flatnonzero(songs.labels != NO_LABEL)
    classes = sorted({songs.classes[label] for label in songs.labels[rows]})
    if len(classes) < 2:
        raise LabelError(
            f"{songs.path}: expected labelled songs of at least two classes, found {len(rows)} labelled songs"
            + (f", all {classes[0]}" if classes else f" among {len(songs)}")
            + ". `segue songs ... --labels FILE` adds labels."
        )
    return rows


def deal(songs: SongTable, rows: Ints, hands: int, seed: int) -> Ints:
    """Return the hand (0 .. hands - 1) of each of `rows`: stratified by label, groups kept together."""
    labels = songs.labels[rows]
    counts = np.bincount(labels)
    most = counts.max()
    if most < hands:
        raise LabelError(
            f"{songs.path}: expected a class of at least {hands} songs to split into {hands}, found {most} at most"
        )
    groups = _group_numbers([songs.groups[row] for row in rows])
    if groups is not None and groups.max() + 1 < hands:
        raise LabelError(
            f"{songs.path}: expected at least {hands} groups (artists) to split into {hands}, found {groups.max() + 1}"
        )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    dealer = kind(n_splits=hands, shuffle=True, random_state=seed)
    hand_of = np.empty(len(rows), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A class rarer than `hands` misses some hands, as it must.
        for hand, (_, members) in enumerate(dealer.split(np.zeros(len(rows)), labels, groups)):
            hand_of[members] = hand
    return hand_of


def _group_numbers(groups: Sequence[str | None]) -> Ints | None:
    """Return a number a song, the same for the same group; a song without one stands alone. None: no groups at all."""
    if all(group is None for group in groups):
        return None
    alone = [f"\0{row}" if group is None else group for row, group in enumerate(groups)]
    return np.unique(alone, return_inverse=True)[1].astype(np.int64)
