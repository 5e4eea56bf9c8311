"""ONNX Runtime: the one module that imports it, and only when a model is opened."""

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.errors import BundleError, ConfigError, MissingDependencyError
from data.machine import usable_cores
from data.provenance import installed_versions
from data.song import Floats

Provider = Literal["auto", "cpu", "cuda"]
PROVIDER_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
WHEELS = ("onnxruntime", "onnxruntime-gpu")


class OnnxModel:
    """A model of a bundle, ready to run.

    Attributes:
        provider: what it runs on, as ONNX Runtime calls it.
        classes: the names of its logits, from the file's metadata; empty where it has none.
    """

    def __init__(self, path: Path, *, provider: Provider = "auto", threads: int | None = None) -> None:
        """Open the ONNX file at `path`.

        Args:
            path: The file.
            provider: Where it runs; `auto` takes CUDA where ONNX Runtime offers it, and `cuda` insists on it.
            threads: Threads inside one product; default: one for each core this process may use.
        """
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        # A spinning thread takes a core from the server that feeds it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        offered = ort.get_available_providers()
        wanted = PROVIDER_NAMES.get(provider) or next(
            one for one in reversed(PROVIDER_NAMES.values()) if one in offered
        )
        try:
            self._session = ort.InferenceSession(path, options, providers=[wanted])
        except Exception as error:  # onnxruntime raises bare pybind exceptions
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from None
        self.provider: str = self._session.get_providers()[0]
        listed: str = self._session.get_modelmeta().custom_metadata_map.get("classes", "")
        self.classes: tuple[str, ...] = tuple(listed.split("\t")) if listed else ()
        if provider == "cuda" and self.provider != wanted:
            raise ConfigError(
                f"provider: expected {wanted}, found {self.provider}; ONNX Runtime offers {', '.join(offered)}. "
                "CUDA needs the `gpu` extra and a GPU."
            )

    def logits(self, windows: Floats) -> Floats:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        result: Floats = self._session.run(["logits"], {"segments": windows})[0]
        return result.astype(np.float32, copy=False)


def onnxruntime() -> Any:
    """Return the onnxruntime module; without it a `MissingDependencyError` names the two extras."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError:
        raise MissingDependencyError(
            "onnxruntime is not installed. In the checkout: `pip install -e '.[cpu]'` for a processor, "
            "`pip install -e '.[gpu]'` for an NVIDIA GPU; never both, they own the same import name."
        ) from None


def installed_wheels() -> dict[str, str]:
    """Return the version of each ONNX Runtime wheel that is installed."""
    return installed_versions(WHEELS)
