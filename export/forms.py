"""The forms of a model: every way to write it as a graph is tried, and the fastest that is right is shipped.

Exact forms differ in how recurrences are written, and must say what the trained network says. Int8 forms round, and
must keep the accuracy on the validation songs; the calibration songs have no say, since they set a promise. What is
right is timed, in turn, at the batch sizes that serving uses, on the execution provider that will serve. The fastest is
the one with the largest geometric mean of songs/s over those, so that no batch size counts for more than another.

A bundle holds one form of each model, for one provider: its temperatures, costs and threshold belong to that form.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from segue.data.song import Floats, Ints
from segue.errors import ConfigError
from segue.export.graphs.build import can_round, graph_of, lowerings_of
from segue.export.graphs.int8 import Int8
from segue.export.parity import ParityError, check_parity
from segue.export.rounding import compare_rounded, why_not_rounded
from segue.serving.bundle.manifest import Form, Lowering, Precision
from segue.serving.runtime import PROVIDER_NAMES, OnnxModel, Provider
from segue.serving.timing import songs_per_s_in_turn
from segue.training.networks.network import Network

log = logging.getLogger(__name__)

BUDGET_S = 0.2  # Seconds that a form is timed at each batch size.
WORTH_ROUNDING = 1.1  # An int8 form must be so many times as fast as the fastest exact one.


@dataclass(frozen=True)
class FormsConfig:
    """Which forms of the models are tried."""

    lowering: Literal["auto", "scan", "unrolled", "operator"] = "auto"  # Of recurrences; auto: the fastest.
    int8: Literal["auto", "never"] = "auto"  # auto: round where that is faster and keeps the accuracy.
    int8_points: float = 0.5  # Accuracy that rounding may cost on the validation songs, in points (0.01).
    int8_agreement: float = 0.98  # Share of the validation songs that it must give the same genre as fp32.

    def __post_init__(self) -> None:
        """Refuse tolerances that are none."""
        if not 0 <= self.int8_points < 100:
            raise ConfigError(f"int8_points: expected 0 up to 100, found {self.int8_points:g}")
        if not 0 <= self.int8_agreement <= 1:
            raise ConfigError(f"int8_agreement: expected 0 to 1, found {self.int8_agreement:g}")


@dataclass(frozen=True)
class Job:
    """A trained network that is to be shipped, and the songs that its forms are judged by, as raw windows."""

    role: str
    network: Network
    classes: tuple[str, ...]
    parity_windows: Floats  # (n, 120, 25), compared with the trained network, and timed.
    validation_windows: Floats  # (n, 120, 25), that int8 is compared on; where there are none, nothing is rounded.
    validation_labels: Ints  # (n,)


@dataclass(frozen=True)
class Shipped:
    """The form of a model that goes into the bundle."""

    form: Form
    rejected: tuple[Form, ...]
    model: OnnxModel


@dataclass(frozen=True)
class _Tried:
    """A form that was written; it has no model where it is out of the question."""

    form: Form
    file: Path
    model: OnnxModel | None = None

    def out(self, why_not: str) -> "_Tried":
        """Return the same form, rejected."""
        return replace(self, form=replace(self.form, why_not=why_not), model=None)


def ship(job: Job, file: Path, config: FormsConfig = FormsConfig(), provider: Provider = "auto") -> Shipped:
    """Write the best form of a network to the ONNX file `file`.

    Raises:
        ParityError: no exact form says what the network says.
    """
    exact = _exact(job, file, config, provider)
    tried = [*exact, *_rounded(job, file, config, provider, next(one for one in exact if one.model))]
    running = [(at, one.model) for at, one in enumerate(tried) if one.model]
    speeds = songs_per_s_in_turn([model for _, model in running], job.parity_windows, budget_s=BUDGET_S)
    for (at, _), speed in zip(running, speeds, strict=True):
        tried[at] = replace(tried[at], form=replace(tried[at].form, songs_per_s=speed))
    best = max((at for at, _ in running), key=lambda at: _worth(tried[at].form))
    for at, one in enumerate(tried):
        if at != best:
            tried[at] = one if one.form.why_not else one.out(_slower(one.form, tried[best].form))
            one.file.unlink(missing_ok=True)
    tried[best].file.rename(file)
    model = tried[best].model
    assert model is not None
    rejected = tuple(one.form for at, one in enumerate(tried) if at != best)
    return Shipped(tried[best].form, rejected, model)


def _exact(job: Job, file: Path, config: FormsConfig, provider: Provider) -> list[_Tried]:
    """Write the exact forms and compare them with the network; one at least is right."""
    tried: list[_Tried] = []
    lowerings: Sequence[Lowering | None] = lowerings_of(job.network) or [None]
    if config.lowering != "auto" and lowerings != [None]:
        lowerings = [config.lowering]
    failure: ParityError | None = None
    for lowering in lowerings:
        path = file.with_suffix(f".{lowering}{file.suffix}")
        onnx.save(graph_of(job.network, job.classes, lowering), path)
        model = OnnxModel(path.read_bytes(), path.name, provider=provider, arena=lowering != "scan")
        one = _Tried(Form(lowering, "fp32", None, None, {}, None), path, model)
        try:
            parity = check_parity(job.role, job.network, model, job.parity_windows)
        except ParityError as error:
            log.warning("%s, lowering %s: %s", job.role, lowering, error)
            failure = error
            tried.append(one.out(str(error)))
        else:
            tried.append(replace(one, form=replace(one.form, parity=parity)))
    if failure and not any(one.model for one in tried):
        raise failure
    return tried


def _rounded(job: Job, file: Path, config: FormsConfig, provider: Provider, exact: _Tried) -> list[_Tried]:
    """Write the int8 forms and compare them with an exact one."""
    lowering: Lowering | None = exact.form.lowering
    model = exact.model
    assert model is not None
    on_cpu = model.provider == PROVIDER_NAMES["cpu"]  # ONNX Runtime multiplies bytes nowhere else.
    if config.int8 == "never" or not on_cpu or not len(job.validation_labels) or not can_round(job.network, lowering):
        return []
    tried: list[_Tried] = []
    kinds: tuple[tuple[Precision, Literal["static", "dynamic"]], ...] = (
        ("int8_static", "static"),
        ("int8_dynamic", "dynamic"),
    )
    for precision, ranges in kinds:
        path = file.with_suffix(f".{precision}{file.suffix}")
        onnx.save(graph_of(job.network, job.classes, lowering, Int8(ranges, job.validation_windows)), path)
        rounded = OnnxModel(path.read_bytes(), path.name, provider=provider, arena=lowering != "scan")
        found = compare_rounded(model, rounded, job.validation_windows, job.validation_labels)
        one = _Tried(Form(lowering, precision, None, found, {}, None), path, rounded)
        why_not = why_not_rounded(found, config.int8_points, config.int8_agreement)
        tried.append(one.out(why_not) if why_not else one)
    return tried


def speed_of(form: Form) -> float:
    """Return the geometric mean of a form's songs/s over the batches it was measured at."""
    return float(np.exp(np.mean(np.log(list(form.songs_per_s.values())))))


def _worth(form: Form) -> float:
    return speed_of(form) / (1 if form.precision == "fp32" else WORTH_ROUNDING)


def _slower(form: Form, best: Form) -> str:
    times = speed_of(form) / speed_of(best)
    return f"{times:.2f} times as fast" + (f", rounding must give {WORTH_ROUNDING}" if times > 1 else "")
