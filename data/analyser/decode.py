"""From a file to mono samples at 22,050 Hz, block by block: libsndfile decodes, soxr resamples, ffmpeg does the rest.

mp3, flac, wav, aiff, ogg and opus are decoded in the process. What else there is, m4a and aac above all, goes through a
system's own `ffmpeg` where there is one.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from segue.data.analyser.complete import Format, sniff, stated_seconds, with_length
from segue.data.analyser.spectra import RATE_HZ
from segue.data.song import Floats
from segue.errors import AudioError, MissingDependencyError

LEAST_SHARE = 0.95  # Of what a file says it holds; with less, it is refused.
READ_VALUES = 2**18  # Samples of all channels that are decoded at a time: 1 MB.
LARGEST_SAMPLE = 1e6  # 1 is full scale; beyond this, powers leave the range of float32.
RATES_HZ = (4_000, 768_000)

_UNSTATED = 2**62  # Frames; libsndfile gives 2**63 - 1 where a file was streamed, and does not say how long it is.
_BY_FFMPEG: frozenset[Format] = frozenset(
    {"m4a", "aac", "matroska", "asf", "ogg flac"}
)  # libsndfile fails at the last.


@dataclass
class Decoding:
    """How the decoding of one file goes.

    Attributes:
        seconds: how much has been decoded.
        warnings: what is odd about the file, though it could be decoded.
    """

    path: Path
    most_s: float  # A longer recording is refused.
    read_values: int = READ_VALUES
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[Floats]:
        """Yield the samples, (n,) mono at 22,050 Hz.

        Raises:
            AudioError: it is no audio file, or it is cut, broken, too long or not finite.
            MissingDependencyError: soundfile or soxr is not installed.
        """
        form = _format(self.path)
        by_ffmpeg = form in _BY_FFMPEG
        for block in self._by_ffmpeg() if by_ffmpeg else self._by_soundfile(form):
            if not np.abs(block).max(initial=0) <= LARGEST_SAMPLE:
                raise AudioError(
                    f"expected samples between -1 and 1, found one that is not finite or beyond {LARGEST_SAMPLE:g} "
                    f"about {self.seconds:.1f} s from the start"
                )
            yield block

    def _by_soundfile(self, form: Format) -> Iterator[Floats]:
        soundfile, soxr = audio_libraries()
        stated_s, cut = stated_seconds(self.path, form)
        failure = None
        with self.path.open("rb") as file, ExitStack() as opened:
            sound = opened.enter_context(_opened(soundfile, file.fileno()))
            rate = sound.samplerate
            if form not in ("mp3", "wav", "ogg"):
                stated_s = sound.frames / rate if sound.frames < _UNSTATED else None
            elif form == "mp3" and stated_s and sound.frames < 0.99 * stated_s * rate:
                sound = opened.enter_context(_opened(soundfile, BytesIO(with_length(self.path, stated_s))))
            if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                raise AudioError(f"expected a sampling rate of {RATES_HZ[0]} to {RATES_HZ[1]} Hz, found {rate}")
            resampler = soxr.ResampleStream(rate, RATE_HZ, 1, dtype="float32")
            frames = max(1, self.read_values // sound.channels)
            while True:
                try:
                    values = sound.read(frames, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    failure = str(error)
                    break
                if not len(values):
                    break
                self._count(len(values) / rate)
                mono = _mono(values)
                yield mono if rate == RATE_HZ else resampler.resample_chunk(mono)
            if rate != RATE_HZ:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._check_whole(stated_s, cut, failure)

    def _count(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds > self.most_s:
            raise AudioError(f"expected at most {self.most_s:g} s of sound, found more. Split the file.")

    def _check_whole(self, stated_s: float | None, cut: bool, failure: str | None) -> None:
        """Refuse a file of which much is missing; note what else is odd."""
        if stated_s and self.seconds < LEAST_SHARE * stated_s:
            why = f" ({failure})" if failure else ""
            raise AudioError(
                f"expected {stated_s:.1f} s of sound, as the file says, found {self.seconds:.1f} s "
                f"({self.seconds / stated_s:.0%}): it is cut short or damaged{why}"
            )
        if failure:
            self.warnings.append(f"damaged after {self.seconds:.1f} s: {failure}")
        elif cut:
            self.warnings.append(f"the file ends early, it may be cut short: {self.seconds:.1f} s were decoded")

    def _by_ffmpeg(self) -> Iterator[Floats]:
        """Let ffmpeg decode, mix and resample; it is told to stop where the recording gets too long."""
        program = shutil.which("ffmpeg")
        if program is None:
            raise AudioError(
                "expected mp3, flac, wav, aiff, ogg or opus, found a format that needs the program ffmpeg, which is "
                "not on PATH. Install ffmpeg, or convert the file."
            )
        command = [
            program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{self.path}",
            "-map", "0:a:0", "-ac", "1", "-ar", str(RATE_HZ), "-t", str(self.most_s + 1), "-f", "f32le", "pipe:1",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                while data := process.stdout.read(4 * self.read_values):
                    block: Floats = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
                    self._count(len(block) / RATE_HZ)
                    yield block
            finally:
                if process.poll() is None and self.seconds > self.most_s:
                    process.kill()
        if process.returncode:
            raise AudioError(
                f"expected sound that ffmpeg can decode, found none or a damaged file: it gave up with exit code "
                f"{process.returncode} after {self.seconds:.1f} s"
            )


def audio_libraries() -> tuple[ModuleType, ModuleType]:
    """Return soundfile and soxr; without them a `MissingDependencyError` names the extra."""
    try:
        import soundfile
        import soxr
    except (ImportError, OSError):  # An OSError where libsndfile itself is missing.
        raise MissingDependencyError(
            "soundfile and soxr are not installed, which audio files need. In the checkout: `pip install -e '.[audio]'`"
        ) from None
    return soundfile, soxr


def _format(path: Path) -> Format:
    if not path.is_file():
        raise AudioError("expected a regular file, found a folder, a fifo, a socket, a device or nothing")
    with path.open("rb") as file:
        head = file.read(4096)
    found = sniff(head)
    if found is None:
        content = f"one that starts with {head[:8]!r}" if head else "an empty one"
        raise AudioError(f"expected an audio file (mp3, flac, wav, aiff, ogg, opus, m4a, aac), found {content}")
    return found


def _opened(soundfile: ModuleType, file: int | BytesIO) -> Any:
    """Open a file by its descriptor, which has no name to be misled by."""
    try:
        sound = soundfile.SoundFile(file, closefd=False)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"expected a sound file that can be decoded, found a damaged or unknown one: {error}"
        ) from None
    sound.seekable = lambda: False  # Or soundfile seeks after each read, to no use, which a streamed flac cannot do.
    return sound


def _mono(values: Floats) -> Floats:
    """Return the mean of the channels, (n,)."""
    if values.shape[1] == 1:
        return values[:, 0]
    total = values[:, 0] + values[:, 1]
    for channel in range(2, values.shape[1]):
        total += values[:, channel]
    mono: Floats = total * np.float32(1 / values.shape[1])
    return mono
