"""`segue report`: its figures against scikit-learn, what it finds wrong, and a page that says so and loads nothing."""

import dataclasses
import json
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss, recall_score
from torch import Tensor

from segue.data.describe.description import BLOCKS
from segue.data.metrics import ece, reliability, softmax
from segue.data.song import Floats, Ints
from segue.data.splits import Shares
from segue.data.synth import synth
from segue.data.table import SongTable
from segue.errors import ConfigError, RunError
from segue.training.fit.journal import Epoch
from segue.training.fit.loop import LoopConfig, predict
from segue.training.networks.dense import DenseConfig
from segue.training.networks.network import Network
from segue.training.networks.standardise import Standardise
from segue.training.report.findings import Curve, Report
from segue.training.report.importance import importances
from segue.training.report.quality import Share, measure
from segue.training.report.report import main, report
from segue.training.report.report_page import write_report
from segue.training.runs import load_run, load_splits
from segue.training.train_student import train_student
from segue.training.train_teacher import train_teacher
from tests.support.random_songs import random_batch, save

CLASSES = ("Jazz", "<b>R&B</b>", "Folk", "Polka")
N_SONGS = 300


@pytest.fixture
def answers() -> tuple[Floats, Ints]:
    """Return logits (300, 4) that know something, and labels among which the last class is missing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N_SONGS)
    return (rng.normal(0, 1, (N_SONGS, 4)) + 1.5 * np.eye(4)[labels]).astype(np.float32), labels


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs, the run of a small teacher with two fold teachers, and that of its student."""
    folder = tmp_path_factory.mktemp("runs")
    synth(folder / "songs.arrow", songs=200, classes=3)
    loop, network = LoopConfig(epochs=3, batch_songs=32), DenseConfig(hidden=(12,))
    shares = Shares(validation=0.2, calibration=0.2)
    train_teacher(folder / "songs.arrow", folder / "teacher", folds=2, network=network, loop=loop, shares=shares)
    train_student(folder / "songs.arrow", folder / "teacher", folder / "student", network, loop)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> Report:
    return report(runs / "teacher", repeats=2)


def test_the_figures_are_those_of_scikit_learn(answers: tuple[Floats, Ints]) -> None:
    logits, labels = answers
    quality = measure(logits, labels, CLASSES, [str(row) for row in range(N_SONGS)], [None] * N_SONGS)
    said, probs = logits.argmax(axis=1), softmax(logits)
    np.testing.assert_array_equal(quality.confusion, confusion_matrix(labels, said, labels=range(4)))
    recalls = recall_score(labels, said, labels=range(4), average=None, zero_division=np.nan)
    np.testing.assert_allclose([share.value for share in quality.recall.values()], recalls)
    assert quality.accuracy == pytest.approx(accuracy_score(labels, said))
    assert quality.mean_recall == pytest.approx(np.nanmean(recalls))
    assert quality.nll == pytest.approx(log_loss(labels, probs, labels=range(4)))
    assert quality.recall["Polka"].songs == 0
    assert sum(one.right.songs for one in quality.reliability) == N_SONGS
    gaps = [one.right.songs * abs(one.confidence - one.right.value) for one in quality.reliability]
    assert quality.ece == pytest.approx(sum(gaps) / N_SONGS)


def test_mean_recall_is_balanced_accuracy(answers: tuple[Floats, Ints]) -> None:
    logits, labels = answers
    quality = measure(logits, labels, CLASSES, [""] * N_SONGS, [None] * N_SONGS)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert quality.mean_recall == pytest.approx(balanced_accuracy_score(labels, logits.argmax(axis=1)))


def test_bins_of_confidence_are_those_of_a_plain_loop(answers: tuple[Floats, Ints]) -> None:
    logits, labels = answers
    probs = softmax(logits)
    songs, confidence, accuracy = reliability(probs, labels, bins=5)
    gap = 0.0
    for b in range(5):
        inside = [i for i in range(N_SONGS) if b / 5 <= probs[i].max() < (b + 1) / 5]
        assert songs[b] == len(inside)
        if inside:
            assert confidence[b] == pytest.approx(np.mean([probs[i].max() for i in inside]))
            assert accuracy[b] == pytest.approx(np.mean([probs[i].argmax() == labels[i] for i in inside]))
            gap += len(inside) / N_SONGS * abs(confidence[b] - accuracy[b])
        else:
            assert np.isnan([confidence[b], accuracy[b]]).all()
    assert ece(probs, labels, bins=5) == pytest.approx(gap)


def test_the_interval_is_wilsons() -> None:
    z = NormalDist().inv_cdf(0.975)
    p, n = 8 / 13, 13
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert Share(8, 13).interval == pytest.approx(((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))
    assert Share(0, 0).interval == (0, 1)


def test_songs_are_ranked_by_cross_entropy_with_the_label(answers: tuple[Floats, Ints]) -> None:
    logits, labels = answers
    quality = measure(logits, labels, CLASSES, [f"song-{row}" for row in range(N_SONGS)], [None] * N_SONGS)
    nats = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels), reduction="none"
    ).numpy()
    order = nats.argsort()
    assert [one.song_id for one in quality.hardest] == [f"song-{row}" for row in order[::-1][:10]]
    assert [one.song_id for one in quality.easiest] == [f"song-{row}" for row in order[:10]]
    np.testing.assert_allclose([one.label_nats for one in quality.hardest], nats[order[::-1][:10]])
    hardest, row = quality.hardest[0], order[-1]
    assert (hardest.label, hardest.said) == (CLASSES[labels[row]], CLASSES[logits[row].argmax()])
    assert hardest.answer_nats == pytest.approx(-np.log(hardest.confidence))


class Listener(Network):
    """Hears the first timbre and the first chroma, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.standardise = Standardise()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 60.0]]))

    def forward(self, segments: Tensor) -> Tensor:
        heard = torch.stack([segments[:, :, 0].mean(dim=1), segments[:, :, 12].mean(dim=1) - 0.5], dim=1)
        return heard @ self.weight.T


def heard_songs(path: Path) -> tuple[SongTable, Floats]:
    """Return songs of 100 to 400 segments, labelled by what `Listener` says of them but for some noise."""
    rng = np.random.default_rng(3)
    batch = random_batch(rng.integers(100, 400, 120).tolist(), ["a"] * 120)
    table = save(path, batch)
    logits = predict(Listener(), table, np.arange(120), 3)
    said = np.where(rng.random(120) < 0.2, rng.integers(0, 3, 120), logits.argmax(axis=1))
    batch.labels[:] = ["abc"[label] for label in said]
    return save(path, batch), logits


def test_the_worth_of_a_block_is_that_of_scikit_learn(tmp_path: Path) -> None:
    table, logits = heard_songs(tmp_path / "songs.arrow")
    network = Listener()

    class Swapped:
        """The network as scikit-learn sees it: column b of a row says which song block b is taken from."""

        def fit(self) -> None:
            """Do nothing: it is trained."""

        def score(self, sources: Ints, labels: Ints) -> float:
            segments = np.empty((len(sources), 120, 25), np.float32)
            for row, of_blocks in enumerate(sources):
                for block, source in zip(BLOCKS.values(), of_blocks, strict=True):
                    song = table.segments(int(source))
                    start = max(len(song) - 120, 0) // 2
                    segments[row, :, block] = np.tile(song, (2, 1))[start : start + 120, block]
            return float(accuracy_score(labels, network(torch.from_numpy(segments)).argmax(dim=1)))

    rows = np.arange(120)
    logits = predict(network, table, rows, 1)
    ours = importances(network, table, rows, table.labels, logits, n_windows=1, repeats=30)
    theirs = permutation_importance(
        Swapped(), np.repeat(rows[:, None], 3, axis=1), table.labels, n_repeats=30, random_state=1
    )
    for i, one in enumerate(ours):
        error = (theirs.importances_std[i] ** 2 + one.accuracy.sd**2) ** 0.5 / 30**0.5
        assert abs(one.accuracy.mean - theirs.importances_mean[i]) <= 4 * error
    assert ours[0].accuracy.mean > 0.1
    assert ours[1].accuracy.mean > 0.03


def test_a_block_that_is_not_heard_is_worth_nothing_and_one_that_is_hits_its_class(tmp_path: Path) -> None:
    table, logits = heard_songs(tmp_path / "songs.arrow")
    timbre, chroma, loudness = importances(
        Listener(), table, np.arange(120), table.labels, logits, n_windows=3, repeats=5
    )
    assert {drop.mean for drop in (loudness.accuracy, *loudness.recall.values())} == {0.0}
    assert timbre.recall["a"].mean > chroma.recall["a"].mean
    labelled = [(table.labels == i).sum() for i in range(3)]
    for one in (timbre, chroma):  # What is lost on the whole is what the classes lose, by their songs.
        drops = [drop.mean for drop in one.recall.values()]
        assert one.accuracy.mean == pytest.approx(np.average(drops, weights=labelled))


def test_the_figures_of_a_run_are_those_of_its_validation_songs(runs: Path, found: Report) -> None:
    table = SongTable(runs / "songs.arrow")
    run, network = load_run(runs / "teacher", "teacher")
    rows = load_splits(runs / "teacher", run, table).validation
    said = predict(network, table, rows, 1).argmax(axis=1)
    assert found.quality.accuracy == run.validation_accuracy == accuracy_score(table.labels[rows], said)
    assert found.quality.nll == pytest.approx(run.validation_nll)
    assert {one.song_id for one in found.quality.hardest} <= {table.song_ids[row] for row in rows}


def test_curves_are_the_metrics_with_the_epoch_that_was_kept(runs: Path, found: Report) -> None:
    assert [curve.fit for curve in found.curves] == ["teacher", "fold-1", "fold-2"]
    for curve in found.curves:
        lines = [json.loads(line) for line in (runs / f"teacher/metrics/{curve.fit}.jsonl").read_text().splitlines()]
        assert [dataclasses.asdict(epoch) for epoch in curve.epochs] == lines
        assert curve.kept == max(lines, key=lambda one: (one["validation_accuracy"], -one["validation_nll"]))["epoch"]


def test_other_songs_can_be_looked_at(runs: Path, tmp_path: Path) -> None:
    other = report(runs / "student", "calibration", page=tmp_path / "page.html", repeats=1)
    assert (other.split, other.quality.songs) == ("calibration", other.run.split_songs["calibration"])
    text = other.page.read_text()
    assert "These songs neither trained the network nor picked its epoch" in text
    assert "distillation loss" in text


def test_the_page_tells_the_numbers_and_loads_nothing(runs: Path, found: Report) -> None:
    assert found.page == runs / "teacher.html"
    page = found.page.read_text()
    quality = found.quality
    for text in (
        f"accuracy {quality.accuracy:.3f}", f"ece {quality.ece:.3f}", f"nll {quality.nll:.3f}",
        found.run.songs_sha256, quality.hardest[0].song_id, quality.easiest[0].song_id, "learning_rate",
        "augmentation transpose", "label_smoothing",
        f"teacher: epoch {found.curves[0].kept} of 3 kept", found.run.provenance.time,
        *(f"{share.part} of {share.songs}" for share in quality.recall.values()),
    ):  # fmt: skip
        assert text in page
    assert "<script" not in page
    assert all(link.startswith("#") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert not re.search(r"url\((?!#)", page)
    before = found.page.read_bytes()
    write_report(found)
    assert found.page.read_bytes() == before


def test_ten_long_fits_a_class_without_songs_and_nasty_names_still_fit(found: Report, tmp_path: Path) -> None:
    epochs = tuple(Epoch(i, 1e9 / i, None, 0.5, float(i), 1e-3, 1.0) for i in range(1, 501))
    names = dict(zip(("<script>alert('R&B')</script> $x$", "b", "c"), found.quality.recall.values(), strict=True))
    names["c"] = Share(0, 0)
    nasty = dataclasses.replace(
        found,
        page=tmp_path / "page.html",
        curves=tuple(Curve(f"fold-{i}", epochs, 500) for i in range(1, 11)),
        quality=dataclasses.replace(found.quality, recall=names),
    )
    write_report(nasty)
    page = nasty.page.read_text()
    assert "<script" not in page
    assert "no songs" in page
    assert "fold-10: epoch 500 of 500 kept" in page
    told = [text for text, _ in nasty.attention()]
    assert "1 class without a song of validation, so nothing is known of it" in told
    assert "10 fits whose last epoch is the one kept; more epochs may be better" in told


def test_a_run_without_metrics_has_no_curves(runs: Path, tmp_path: Path, found: Report) -> None:
    bare = dataclasses.replace(found, curves=(), page=tmp_path / "page.html")
    write_report(bare)
    assert "Learning curves" not in bare.page.read_text()
    assert bare.attention()[-1] == ("1 run without metrics, as joined ones are; there are no curves to draw", [])


def test_a_table_for_people_and_one_json_document_for_programs(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(runs / "student"), "--repeats", "1", "--page", str(tmp_path / "page.html")]
    assert main(command) == 0
    assert re.search(r"^all, accuracy +\d+ +0\.\d{3}", capsys.readouterr().out, re.MULTILINE)
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"]["role"] == "student"
    assert np.sum(document["quality"]["confusion"]) == document["quality"]["songs"]
    assert [one["block"] for one in document["importances"]] == ["timbre", "chroma", "loudness"]


def test_songs_of_another_run_are_refused(runs: Path, tmp_path: Path) -> None:
    synth(tmp_path / "other.arrow", songs=60, classes=3, seed=1)
    with pytest.raises(RunError, match=r"was trained on .*songs\.arrow .*other\.arrow holds other songs"):
        report(runs / "teacher", songs=tmp_path / "other.arrow")


def test_an_empty_split_is_refused(runs: Path) -> None:
    with pytest.raises(
        RunError, match="expected songs of test, found none; it has songs of validation and calibration"
    ):
        report(runs / "teacher", "test")


@pytest.mark.parametrize("content", ["", '{"epoch": 1', '{"epoch": 1}'])
def test_metrics_that_were_cut_short_are_named(runs: Path, tmp_path: Path, content: str) -> None:
    broken = tmp_path / "broken"
    (broken / "metrics").mkdir(parents=True)
    for file in (runs / "teacher").glob("*.*"):
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "metrics" / "teacher.jsonl").write_text(content)
    with pytest.raises(RunError, match=r"metrics/teacher\.jsonl: expected a line of JSON an epoch, found"):
        report(broken)
    assert not (tmp_path / "broken.html").exists()


def test_what_cannot_be_done_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repeats: expected at least 1, found 0"):
        report(runs / "teacher", repeats=0)
    with pytest.raises(ConfigError, match=r"expected a file that ends in \.html, found .*songs\.arrow"):
        report(runs / "teacher", page=runs / "songs.arrow")
    with pytest.raises(RunError, match="expected a run, found no such folder"):
        report(tmp_path / "gone")
