"""Augmentation: songs that are changed a little every time they are learnt from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from segue.data.song import CHROMA
from segue.errors import ConfigError

PITCHES = 12


@dataclass(frozen=True)
class AugmentationConfig:
    """What is changed about a window each time it is learnt from."""

    noise: float = 0.0  # Random noise on every number, in standard deviations of its feature; 0.1 to 0.3 are usual.
    transpose: bool = False  # Play each window in a random key: its chroma turned by 0 to 11 semitones.

    def __post_init__(self) -> None:
        """Refuse noise without a size."""
        if not 0 <= self.noise < float("inf"):
            raise ConfigError(f"noise: expected at least 0 standard deviations, found {self.noise}")


def augment(segments: Tensor, config: AugmentationConfig, deviation: Tensor) -> Tensor:
    """Return raw windows (n, 120, 25), each changed at random; `deviation` (25,) is that of the training songs."""
    if config.transpose:
        segments = transpose(segments, torch.randint(PITCHES, (len(segments),), device=segments.device))
    if config.noise:
        segments = segments + config.noise * deviation * torch.randn_like(segments)
    return segments


def transpose(segments: Tensor, semitones: Tensor) -> Tensor:
    """Return windows (n, steps, 25) with the chroma of each turned up by so many `semitones` (n,)."""
    pitch = torch.arange(PITCHES, device=segments.device)
    source = (pitch - semitones[:, None]) % PITCHES
    turned = segments.clone()
    turned[..., CHROMA] = segments[..., CHROMA].gather(2, source[:, None].expand(-1, segments.shape[1], -1))
    return turned
