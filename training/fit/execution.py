"""How a training run is executed: where, whether it goes on from its last epoch, what it shows. Not what it learns."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from segue.command import unset
from segue.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Execution:
    """How a training run is executed."""

    device: Device = "auto"  # Where it trains; auto takes a GPU where there is one, and cuda insists on it.
    # Processor threads; 1 is best beside other work. Default: one for each core.
    threads: Annotated[int | None, unset("INT")] = None
    compile: bool = False  # Compile recurrences: up to half a minute first; gru and lstm gain by it.
    resume: bool = False  # Go on after the last epoch of a run that was stopped, to the very same result.
    tensorboard: bool = False  # Write metrics for TensorBoard too, into the run folder.

    def __post_init__(self) -> None:
        """Refuse no threads."""
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: expected at least 1, found {self.threads}")

    def prepare(self) -> None:
        """Take the threads for this process, and refuse a device that is not there before anything else is done."""
        self.pick_device()
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def pick_device(self) -> torch.device:
        """Return the device; a `ConfigError` where a GPU was asked for and there is none."""
        found = torch.cuda.is_available()
        if self.device == "cuda" and not found:
            raise ConfigError(
                f"device: expected a GPU, found none that torch {torch.__version__} can use. "
                "--device cpu trains on the processor."
            )
        return torch.device("cuda" if found and self.device != "cpu" else "cpu")
