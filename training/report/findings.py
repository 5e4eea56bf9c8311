"""What a report on a training run says, and what of it deserves attention."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from segue.data.describe.description import counted
from segue.training.fit.journal import Epoch
from segue.training.report.importance import Importance
from segue.training.report.quality import Quality
from segue.training.runs import Run

Split = Literal["validation", "calibration", "test"]


@dataclass(frozen=True)
class Curve:
    """How one network of a run learnt."""

    fit: str
    epochs: tuple[Epoch, ...]
    kept: int  # The epoch whose weights were kept, counted from 1.


@dataclass(frozen=True)
class Report:
    """What `segue report` found."""

    folder: Path
    page: Path
    split: Split  # The songs that all but the curves are about.
    run: Run
    curves: tuple[Curve, ...]  # None of a run that was joined.
    quality: Quality
    importances: tuple[Importance, ...]

    def __str__(self) -> str:
        recall = self.quality.recall
        blocks = [one.block for one in self.importances]
        rows = [
            (name, share.songs, share.value, *(one.recall[name].mean for one in self.importances))
            for name, share in recall.items()
        ]
        every = ("all, accuracy", self.quality.songs, self.quality.accuracy)
        rows.append((*every, *(one.accuracy.mean for one in self.importances)))
        remarks = [f"  {text}: {'; '.join(some)}" if some else f"  {text}" for text, some in self.attention()]
        return "\n".join(
            [
                f"{self.folder}: {', '.join(self.facts())}",
                "",
                tabulate(
                    rows, ("class", "songs", "recall", *(f"lost without {one}" for one in blocks)), floatfmt=".3f"
                ),
                "",
                *(["worth attention:", *remarks] if remarks else ["nothing to worry about"]),
                "",
                f"{self.page}   the page: look at it",
            ]
        )

    def facts(self) -> list[str]:
        """Return the few facts that matter, for a title line."""
        found = self.quality
        return [
            f"{self.run.role}, {self.run.network.shape}",
            f"{counted(found.songs, 'song')} of {self.split}",
            f"accuracy {found.accuracy:.3f}",
            f"nll {found.nll:.3f} nats",
            f"ece {found.ece:.3f}",
        ]

    def attention(self) -> list[tuple[str, list[str]]]:
        """Return what deserves attention, each with its examples."""
        recall = self.quality.recall
        absent = [name for name, share in recall.items() if not share.songs]
        weak = [f"{name} {recall[name].value:.2f}" for name in self.weak()]
        unfinished = [curve.fit for curve in self.curves if 1 < len(curve.epochs) == curve.kept]
        remarks = [
            (len(absent), "class", f"without a song of {self.split}, so nothing is known of it", absent),
            (len(weak), "class", "recognised less often than songs are on the whole, beyond chance", weak),
            (len(unfinished), "fit", "whose last epoch is the one kept; more epochs may be better", unfinished),
            (not self.curves, "run", "without metrics, as joined ones are; there are no curves to draw", []),
        ]
        return [(f"{counted(int(count), noun)} {what}", some) for count, noun, what, some in remarks if count]

    def weak(self) -> list[str]:
        """Return the classes whose recall is below the accuracy, even at the upper end of its 95 % interval."""
        return [name for name, share in self.quality.recall.items() if share.interval[1] < self.quality.accuracy]
