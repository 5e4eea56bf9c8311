"""ONNX Runtime: what is missing, damaged or not on offer is said, and nothing falls back in silence."""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from segue.data.song import Floats
from segue.errors import BundleError, ConfigError, MissingDependencyError
from segue.serving import runtime
from segue.serving.runtime import OnnxModel
from tests.support.random_songs import random_segments

no_gpu = pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="there is a GPU here")


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = importlib.import_module

    def import_module(name: str) -> ModuleType:
        if name == "onnxruntime":
            raise ImportError(name)
        return real_import(name)

    monkeypatch.setattr("segue.serving.runtime.importlib.import_module", import_module)


@pytest.mark.usefixtures("without_onnxruntime")
def test_without_onnxruntime_both_extras_are_named(bundle: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"genres\[cpu\].*genres\[gpu\].*never both"):
        OnnxModel((bundle / "student.onnx").read_bytes(), "student.onnx")


@no_gpu
@pytest.mark.filterwarnings("error")  # ONNX Runtime's own, which says the same at greater length.
def test_cuda_without_a_gpu_is_refused(bundle: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"provider: expected CUDAExecutionProvider, found .*CPUExecutionProvider.*`gpu` extra"
    ):
        OnnxModel((bundle / "student.onnx").read_bytes(), "student.onnx", provider="cuda")


@pytest.mark.parametrize("content", [b"", b"\x08\x09", b"not ONNX at all", bytes(range(256)) * 40])
def test_a_file_that_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"student\.onnx: (ONNX Runtime cannot load it|expected an ONNX model)"):
        OnnxModel(content, "student.onnx")


def test_a_model_cut_short_is_refused(bundle: Path) -> None:
    content = (bundle / "teacher.onnx").read_bytes()
    with pytest.raises(BundleError, match=r"teacher\.onnx: expected an ONNX model, found other bytes, or one cut off"):
        OnnxModel(content[: len(content) // 2], "teacher.onnx")


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_change_the_speed_and_not_the_answer(bundle: Path, threads: int | None) -> None:
    windows = random_segments(200 * 120).reshape(200, 120, 25)
    bare = ort.InferenceSession(bundle / "teacher.onnx", providers=["CPUExecutionProvider"])
    (expected,) = bare.run(None, {"segments": windows})
    model = OnnxModel((bundle / "teacher.onnx").read_bytes(), "teacher.onnx", provider="cpu", threads=threads)
    for n in (1, 16, 17, 200):
        found = model.logits(windows[:n])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:n], atol=1e-5)
    assert model.provider == "CPUExecutionProvider"


class Recorder:
    """ONNX Runtime on one provider, as far as a model needs it: it keeps what it is asked, and answers with zeros."""

    SessionOptions, RunOptions = ort.SessionOptions, ort.RunOptions

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.opened: list[object] = []
        self.asked: list[int] = []  # Windows of each call.

    def get_available_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def InferenceSession(self, content: bytes, options: object, providers: object) -> "Recorder":  # noqa: N802
        self.opened.append(providers)
        return self

    def get_providers(self) -> list[str]:
        return self.get_available_providers()

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={})

    def run(self, outputs: list[str], inputs: dict[str, Floats], options: object) -> list[Floats]:
        self.asked.append(len(inputs["segments"]))
        return [np.zeros((len(inputs["segments"]), 2), dtype=np.float32)]


def test_a_gpu_multiplies_in_full_float32_and_gets_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("CUDAExecutionProvider")
    monkeypatch.setattr(runtime, "onnxruntime", lambda: recorder)
    model = OnnxModel(b"", "student.onnx", threads=2)
    assert model.logits(np.zeros((300, 120, 25), dtype=np.float32)).shape == (300, 2)
    assert recorder.opened == [[("CUDAExecutionProvider", {"use_tf32": "0"})]]
    assert recorder.asked == [300]
    assert model.provider == "CUDAExecutionProvider"


@pytest.mark.parametrize(("threads", "n"), [(1, 100), (2, 20), (2, 136), (2, 190), (2, 1000), (4, 300), (3, 1)])
def test_all_threads_have_as_much_to_do(monkeypatch: pytest.MonkeyPatch, threads: int, n: int) -> None:
    recorder = Recorder("CPUExecutionProvider")
    monkeypatch.setattr(runtime, "onnxruntime", lambda: recorder)
    model = OnnxModel(b"", "student.onnx", threads=threads)
    assert model.logits(np.zeros((n, 120, 25), dtype=np.float32)).shape == (n, 2)
    shares = sorted(recorder.asked)
    assert sum(shares) == n
    assert shares[-1] <= 96
    if n >= 16 * threads:
        assert len(shares) % threads == 0
        assert shares[-1] - shares[0] < len(shares)


@no_gpu
def test_auto_takes_the_processor_where_there_is_no_gpu(bundle: Path) -> None:
    assert OnnxModel((bundle / "student.onnx").read_bytes(), "student.onnx").provider == "CPUExecutionProvider"


def test_the_wheel_that_is_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ort.__version__ in runtime.installed_wheels().values()
    monkeypatch.setattr("segue.serving.runtime.WHEELS", ("onnxruntime-of-another-world",))
    assert runtime.installed_wheels() == {}
