"""Loading a bundle: verified and opened, beside reading its files and opening bare sessions."""

from pathlib import Path

from segue.bench.suites.conftest import Measure
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.runtime import onnxruntime


def test_load(measure: Measure, bundle: Path) -> None:
    """Read, every sha256 verified."""
    measure("bundle, read", lambda: load_bundle(bundle), 1, "bundles/s", by="Segue, verified")


def test_read(measure: Measure, bundle: Path) -> None:
    """The baseline: the bytes."""
    files = [path for path in bundle.iterdir() if path.is_file()]
    measure("bundle, read", lambda: [path.read_bytes() for path in files], 1, "bundles/s", by="bare reads")


def test_open(measure: Measure, bundle: Path) -> None:
    """Both models, ready to answer, from verified bytes."""
    loaded = load_bundle(bundle)
    measure("bundle, opened", lambda: open_cascade(loaded, threads=1), 1, "bundles/s", by="Segue")


def test_open_sessions(measure: Measure, bundle: Path) -> None:
    """The baseline: two sessions of ONNX Runtime."""
    contents = [(bundle / name).read_bytes() for name in ("student.onnx", "teacher.onnx")]
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1

    def sessions() -> None:
        for content in contents:
            onnxruntime().InferenceSession(content, options, providers=["CPUExecutionProvider"])

    measure("bundle, opened", sessions, 1, "bundles/s", by="bare ONNX Runtime")
