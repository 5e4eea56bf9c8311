"""ONNX Runtime: the one module that imports it, and only when a model is opened."""

import importlib
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np

from segue.data.song import Floats
from segue.errors import BundleError, ConfigError, MissingDependencyError
from segue.machine import usable_cores
from segue.provenance import installed_versions
from segue.serving.bundle.self_contained import check_self_contained

Provider = Literal["auto", "cpu", "cuda"]
PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 keeps 10 bits of a factor, which is not the answer of the trained network.
PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
WHEELS = ("onnxruntime", "onnxruntime-gpu")
# About how many windows a thread takes at a time: few enough that what the operators hand on stays in its cache, enough
# that products run at full speed.
LEAST_WINDOWS, BEST_WINDOWS = 16, 64


class OnnxModel:
    """A model of a bundle, ready to run.

    Attributes:
        provider: what it runs on, as ONNX Runtime calls it.
        classes: the names of its logits, from the file's metadata; empty where it has none.
    """

    def __init__(
        self, content: bytes, name: str, *, provider: Provider = "auto", threads: int | None = None, arena: bool = True
    ) -> None:
        """Open an ONNX file that is in memory; it is a `BundleError` if it refers to another one.

        Args:
            content: The bytes of the file; they are not kept.
            name: The file's name, for messages.
            provider: Where it runs; `auto` takes CUDA where ONNX Runtime offers it, and `cuda` insists on it.
            threads: Threads that share the windows of a call on a processor; default: one for each core this process
                may use.
            arena: Whether ONNX Runtime keeps memory for the next call. Large batches go faster with it, but threads ask
                it one at a time: in a `Scan` of many small steps they wait for each other most of the time.
        """
        ort = onnxruntime()
        options = ort.SessionOptions()
        # Threads that share out windows wait for each other once a call; threads inside an operator, at every one.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = arena
        options.log_severity_level = 3
        offered = ort.get_available_providers()
        _insist(provider, offered)
        wanted = PROVIDER_NAMES.get(provider) or next(
            one for one in reversed(PROVIDER_NAMES.values()) if one in offered
        )
        if wanted == PROVIDER_NAMES["cuda"]:
            _load_cuda(ort)
        check_self_contained(content, name)
        options.add_session_config_entry(
            "session.load_model_format", "ONNX"
        )  # What was just checked, and nothing else.
        try:
            self._session = ort.InferenceSession(
                content, options, providers=[(wanted, PROVIDER_OPTIONS.get(wanted, {}))]
            )
        except Exception as error:  # onnxruntime raises bare pybind exceptions
            raise BundleError(f"{name}: ONNX Runtime cannot load it: {error}") from None
        self.provider: str = self._session.get_providers()[0]
        listed: str = self._session.get_modelmeta().custom_metadata_map.get("classes", "")
        self.classes: tuple[str, ...] = tuple(listed.split("\t")) if listed else ()
        _insist(provider, self._session.get_providers())
        self._run_options = ort.RunOptions
        self._running: set[Any] = set()  # The options of the calls that are under way.
        self._threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=name)

    def logits(self, windows: Floats) -> Floats:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        if self.provider != PROVIDER_NAMES["cpu"]:
            return self._run(windows)
        # Turns of every thread, equal ones, so that all end together.
        turns = max(1, round(len(windows) / (self._threads * BEST_WINDOWS)))
        share = max(math.ceil(len(windows) / (self._threads * turns)), LEAST_WINDOWS)
        shares = [windows[at : at + share] for at in range(0, max(len(windows), 1), share)]
        if len(shares) == 1:
            return self._run(windows)
        run = map if self._threads == 1 else self._pool.map
        return np.concatenate(list(run(self._run, shares)))

    def stop(self) -> None:
        """Let every call that is under way fail before its next operator, from another thread."""
        for options in tuple(self._running):
            options.terminate = True

    def _run(self, windows: Floats) -> Floats:
        options = self._run_options()
        self._running.add(options)
        try:
            result: Floats = self._session.run(["logits"], {"segments": windows}, options)[0]
        finally:
            self._running.discard(options)
        return result.astype(np.float32, copy=False)


def _load_cuda(ort: Any) -> None:
    """Load CUDA's libraries from the packages that the `gpu` extra brings, where the system has none."""
    if hasattr(ort, "preload_dlls"):  # It prints what it does not find, which the session then tells better.
        with redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _insist(provider: Provider, found: Sequence[str]) -> None:
    """Refuse to go on without CUDA where it was asked for."""
    wanted = PROVIDER_NAMES["cuda"]
    if provider == "cuda" and wanted not in found:
        raise ConfigError(
            f"provider: expected {wanted}, found {', '.join(found)}. CUDA needs the `gpu` extra and a GPU."
        )


def onnxruntime() -> Any:
    """Return the onnxruntime module; without it a `MissingDependencyError` names the two extras."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        raise MissingDependencyError(
            "onnxruntime is not installed. `pip install 'segue-genres[cpu]'` for a processor, "
            "`pip install 'segue-genres[gpu]'` for an NVIDIA GPU; never both, they own the same import name."
        ) from None


def installed_wheels() -> dict[str, str]:
    """Return the version of each ONNX Runtime wheel that is installed."""
    return installed_versions(WHEELS)
