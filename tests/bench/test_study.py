"""The study's measurement: every model goes over the songs, and the published figures stand beside."""

from pathlib import Path

import pytest

from segue.bench import study
from segue.bench.study import PUBLISHED, measure_study
from segue.serving.bundle.load import load_bundle


@pytest.mark.slow
def test_every_model_goes_over_the_songs(bundle: Path, mixed_songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "QUICK_SONGS", 120)
    monkeypatch.setattr(study, "QUICK_PASSES", 2)
    found = measure_study(load_bundle(bundle), "segue bench --study --quick", songs=mixed_songs, quick=True)
    models = [str(one.conditions["model"]) for one in found.select("study", "throughput")]
    assert models[:3] == ["eager torch, teacher", "eager torch, student", "Segue, teacher-fp32"]
    assert [*PUBLISHED] == models[-2:]
    assert {"bundle, student", "bundle, teacher", "bundle, cascade, 25% fall back"} < {*models}
    for model in models[:-2]:
        (rate,), (wall,) = (found.select("study", name, model=model) for name in ("throughput", "wall"))
        assert sum(120 / one for one in rate.rounds) == pytest.approx(wall.value)
