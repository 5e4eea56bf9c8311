"""Models in process: every form of the study's networks, beside ONNX Runtime as it comes and eager torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from segue.bench.networks import EagerStudent, EagerTeacher, graphs
from segue.bench.suites.conftest import Measure
from segue.data.song import Floats, Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.runtime import OnnxModel, onnxruntime

TEACHERS = ("teacher-fp32", "teacher-int8", "teacher-unrolled", "teacher-operator")
STUDENTS = ("flat-1784-fp32", "flat-1784-int8", "flat-828-fp32", "flat-828-int8", "pooled-512-fp32", "pooled-512-int8")
SCANS = ("teacher-fp32", "teacher-int8")
EAGER: dict[str, Callable[[], torch.nn.Module]] = {
    "teacher": lambda: EagerTeacher(state=341).eval(),
    "student": lambda: EagerStudent(hidden=1784).eval(),
}
PLAIN = {"teacher": "teacher-operator", "student": "flat-1784-fp32"}


@pytest.fixture(scope="session")
def graph_files(space: Path, windows: Floats) -> Path:
    """A folder with the networks as graphs, by name."""
    for name, graph in graphs(windows):
        onnx.save(graph, space / f"{name}.onnx")
    return space


@pytest.mark.parametrize("name", [*TEACHERS, *STUDENTS])
def test_segue(measure: Measure, graph_files: Path, windows: Floats, name: str, batch_songs: int, threads: int) -> None:
    """A graph as the service runs it."""
    file = graph_files / f"{name}.onnx"
    model = OnnxModel(file.read_bytes(), name, provider="cpu", threads=threads, arena=name not in SCANS)
    batch = windows[:batch_songs]
    found = measure(
        _group(name, batch_songs, threads), lambda: model.logits(batch), batch_songs,
        graph=name, batch_songs=batch_songs, threads=threads,
    )  # fmt: skip
    assert found.shape == (batch_songs, 10)


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_plain_onnxruntime(
    measure: Measure, graph_files: Path, windows: Floats, kind: str, batch_songs: int, threads: int
) -> None:
    """ONNX Runtime as it comes, its threads inside the operators; the teacher by its own RNN operator."""
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime().InferenceSession(
        graph_files / f"{PLAIN[kind]}.onnx", options, providers=["CPUExecutionProvider"]
    )
    batch = {"segments": windows[:batch_songs]}
    measure(
        _group(kind, batch_songs, threads), lambda: session.run(None, batch), batch_songs,
        graph=f"plain ONNX Runtime, {PLAIN[kind]}", batch_songs=batch_songs, threads=threads,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_eager_torch(measure: Measure, windows: Floats, kind: str, batch_songs: int, threads: int) -> None:
    """The networks as the study ran them."""
    network, batch = EAGER[kind](), torch.from_numpy(windows[:batch_songs])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            measure(
                _group(kind, batch_songs, threads), lambda: network(batch), batch_songs,
                graph=f"eager torch, {kind}", batch_songs=batch_songs, threads=threads,
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("fallback_rate", [0.0, 0.1, 0.3, 1.0])
def test_cascade(
    measure: Measure, bundle: Path, windows: Floats, fallback_rate: float, batch_songs: int, threads: int
) -> None:
    """The cascade at several fallback rates; all songs to the teacher is the baseline."""
    cascade = open_cascade(load_bundle(bundle), provider="cpu", threads=threads)
    songs = Songs.of(windows[:batch_songs])
    threshold = _threshold(cascade, songs, fallback_rate)
    answers = measure(
        f"cascade, {batch_songs} songs, {threads} threads", lambda: cascade.answer(songs, threshold), batch_songs,
        asked=fallback_rate, batch_songs=batch_songs, threads=threads,
    )  # fmt: skip
    assert abs(float(answers.fell_back.mean()) - fallback_rate) <= 1 / batch_songs


def _threshold(cascade: Cascade, songs: Songs, fallback_rate: float) -> float:
    """Return the threshold at which so many of these songs fall back."""
    doubts = np.sort(cascade.student.predict(songs).doubt_nats)
    accepted = round(len(songs) * (1 - fallback_rate))
    return float(doubts[accepted - 1]) if accepted else -1.0


def _group(name: str, batch_songs: int, threads: int) -> str:
    return f"{'teacher' if name.startswith('teacher') else 'student'}, {batch_songs} songs, {threads} threads"
