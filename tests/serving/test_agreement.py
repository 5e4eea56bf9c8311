"""One cascade: the HTTP service, the scorer and the evaluation give every song the same answer."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from segue.data.table import SongTable
from segue.serving.batch.score import score
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.evaluate import evaluate
from segue.serving.tables import predict_rows
from segue.serving.tradeoff import answers
from tests.serving.conftest import Client
from tests.support.bundles import BOTH_ANSWER_NATS, CLASSES

CLOSE_NATS = 1e-5
ONE_REQUEST = 37  # Songs; a batch size that neither the scorer nor the evaluation uses.


def test_http_scorer_and_evaluation_agree_on_every_song(
    service: Client, bundle: Path, mixed_songs: Path, tmp_path: Path
) -> None:
    table = SongTable(mixed_songs)
    rows = np.arange(len(table))

    over_http = []
    for some in np.array_split(rows, len(rows) // ONE_REQUEST):
        songs = [{"id": table.song_ids[row], "segments": table.segments(row).tolist()} for row in some]
        over_http += service.classify(songs, threshold=BOTH_ANSWER_NATS).json()["songs"]

    score(bundle, (str(mixed_songs),), tmp_path / "scores.parquet", threshold=BOTH_ANSWER_NATS, probs=True)
    scored = pq.read_table(tmp_path / "scores.parquet").to_pylist()

    cascade = open_cascade(load_bundle(bundle))
    student, teacher = (predict_rows(model, table, rows, "") for model in (cascade.student, cascade.teacher))
    evaluated = answers(student, teacher, BOTH_ANSWER_NATS)

    for row, (web, batch) in enumerate(zip(over_http, scored, strict=True)):
        assert web["id"] == batch["song_id"] == table.song_ids[row]
        assert web["genre"] == batch["genre"] == CLASSES[evaluated.choice[row]]
        assert web["answered_by"] == batch["answered_by"] == evaluated.answered_by(row)
        found = [web["cross_entropy_nats"], batch["cross_entropy_nats"]]
        np.testing.assert_allclose(found, evaluated.cross_entropy_nats[row], rtol=0, atol=CLOSE_NATS)
        for name, probability in web["probabilities"].items():
            assert abs(batch["probabilities"][name] - probability) < CLOSE_NATS
    assert {one["answered_by"] for one in scored} == {"student", "teacher"}
    figures = evaluate(bundle, mixed_songs, threshold=BOTH_ANSWER_NATS).evaluation
    labels = [table.classes[label] for label in table.labels]
    assert figures.cascade.accuracy == np.mean(
        [one["genre"] == label for one, label in zip(scored, labels, strict=True)]
    )
