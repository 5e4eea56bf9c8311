"""Files that people have: cut, damaged, misnamed, silent, huge. Each is an error or a warning of its own file."""

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segue.data.analyser import worker
from segue.data.analyser.analyse import analyse
from segue.data.analyser.workers import Limits, Workers
from segue.errors import AudioError
from tests.data.analyser.recordings import music, save

FFMPEG = shutil.which("ffmpeg")


def half_of(file: Path) -> Path:
    content = file.read_bytes()
    half = file.with_name(f"half{file.suffix}")
    half.write_bytes(content[: len(content) // 2])
    return half


def without_xing(file: Path) -> Path:
    content = file.read_bytes()
    assert b"Xing" in content[:200] or b"Info" in content[:200]
    file.write_bytes(content[content.index(content[:2], 4) :])  # The next frame begins like the first.
    return file


def error_of(file: Path) -> str:
    with pytest.raises(AudioError) as caught:
        analyse(file)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["mp3", "flac", "wav"])
def test_half_a_file_is_refused_and_the_error_says_how_much_was_decoded(tmp_path: Path, suffix: str) -> None:
    message = error_of(half_of(save(tmp_path / f"a.{suffix}", music(20), 44_100)))
    assert "as the file says, found" in message
    assert "cut short" in message


def test_half_an_ogg_or_an_mp3_that_does_not_state_its_length_is_warned_of(tmp_path: Path) -> None:
    ogg = half_of(save(tmp_path / "a.ogg", music(20), 44_100))
    mp3 = half_of(without_xing(save(tmp_path / "a.mp3", music(20), 44_100, bitrate_mode="CONSTANT")))
    for file in (ogg, mp3):
        (warning,) = analyse(file).warnings
        assert "may be cut short" in warning
        assert "s were decoded" in warning


def test_an_mp3_of_changing_bit_rate_that_does_not_state_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(5 * 44_100, np.float32), music(20), music(20, "band")])
    file = save(tmp_path / "a.mp3", samples, 44_100, bitrate_mode="VARIABLE")
    assert analyse(without_xing(file)).seconds == pytest.approx(len(samples) / 44_100, abs=0.1)


def streamed(file: Path) -> Path:
    """Take the lengths out of a flac or wav, as programs leave them that write to a pipe."""
    content = bytearray(file.read_bytes())
    if file.suffix == ".flac":
        content[21] &= 0xF0  # STREAMINFO: 36 bits that count the samples.
        content[22:26] = bytes(4)
    else:
        content[4:8] = content[40:44] = b"\xff" * 4
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_a_file_that_was_streamed_without_its_length_is_read_to_its_end(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"a.{suffix}", music(20), 44_100)
    stated = analyse(file)
    found = analyse(streamed(file))
    assert (found.warnings, found.seconds) == ((), stated.seconds)
    np.testing.assert_array_equal(found.segments, stated.segments)


@pytest.mark.long
def test_a_streamed_file_that_expands_to_hours_is_refused_before_it_does(tmp_path: Path) -> None:
    file = streamed(save(tmp_path / "a.flac", np.zeros(8_000 * 3_600 * 3, np.int16), 8_000))
    assert "expected at most 7200 s of sound, found more" in error_of(file)


def test_whole_files_are_not_warned_of(tmp_path: Path) -> None:
    for suffix in ("mp3", "flac", "wav", "ogg", "aiff"):
        found = analyse(save(tmp_path / f"a.{suffix}", music(5), 44_100))
        assert found.warnings == ()
        assert found.seconds == pytest.approx(2.5, abs=0.06)


def test_a_damaged_mp3_is_refused_or_warned_of(tmp_path: Path) -> None:
    file = save(tmp_path / "a.mp3", music(20), 44_100)
    content = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    middle = len(content) // 3
    content[middle : 2 * middle] = rng.integers(0, 256, middle, dtype=np.uint8).tobytes()
    file.write_bytes(content)
    assert "cut short or damaged" in error_of(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20, 1e300])
def test_samples_that_are_no_numbers_or_absurd_are_refused(tmp_path: Path, value: float) -> None:
    samples = music(5).astype(np.float64)
    samples[70_000] = value
    with np.errstate(over="ignore"):
        message = error_of(save(tmp_path / "a.wav", samples, subtype="DOUBLE"))
    assert "not finite or beyond" in message


@pytest.mark.parametrize("count", [0, 10])
def test_no_samples_and_ten_are_too_few(tmp_path: Path, count: int) -> None:
    assert "expected at least 0.25 s of sound" in error_of(save(tmp_path / "a.wav", np.zeros(count)))


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_silence_and_direct_current_are_no_music(tmp_path: Path, level: float) -> None:
    assert error_of(save(tmp_path / "a.wav", np.full(60_000, level), 44_100)) == "expected sound, found silence"


def test_direct_current_changes_little(tmp_path: Path) -> None:
    samples = 0.4 * music(10)
    expected, found = (
        analyse(save(tmp_path / f"{name}.wav", samples + offset, subtype="FLOAT"))
        for name, offset in (("a", 0.0), ("b", 0.3))
    )
    assert len(found.segments) == len(expected.segments)
    # The first segment has the step with which the offset begins.
    np.testing.assert_allclose(found.segments[1:], expected.segments[1:], atol=0.6)


def test_a_clipped_recording_is_analysed(tmp_path: Path) -> None:
    assert len(analyse(save(tmp_path / "a.wav", (8 * music(10)).clip(-1, 1))).segments) > 10


@pytest.mark.parametrize(
    ("channels", "rate_hz", "how"),
    [
        (1, 22_050, {"subtype": "PCM_16"}),
        (6, 48_000, {"subtype": "PCM_16"}),
        (2, 192_000, {"subtype": "PCM_24"}),
        (1, 8_000, {"subtype": "PCM_U8"}),
        (2, 44_100, {"subtype": "DOUBLE"}),
        (2, 96_000, {"subtype": "FLOAT"}),
    ],
)
def test_channels_rates_and_depths_of_all_kinds(
    tmp_path: Path, channels: int, rate_hz: int, how: dict[str, str]
) -> None:
    samples = np.repeat(music(12)[:, None], channels, axis=1)
    found = analyse(save(tmp_path / "a.wav", samples, rate_hz, **how))
    assert found.seconds == pytest.approx(len(samples) / rate_hz)
    assert len(found.segments) > 2


def test_text_named_mp3_and_nothing_named_wav(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_text("this is a shopping list\n" * 500)
    assert "expected an audio file" in error_of(tmp_path / "a.mp3")
    (tmp_path / "a.wav").touch()
    assert "found an empty one" in error_of(tmp_path / "a.wav")


def test_an_mp3_named_wav_is_an_mp3(tmp_path: Path) -> None:
    mp3 = save(tmp_path / "a.mp3", music(10))
    wav = tmp_path / "a.wav"
    shutil.copy(mp3, wav)
    np.testing.assert_array_equal(analyse(wav).segments, analyse(mp3).segments)


def test_tags_of_megabytes_with_a_picture(tmp_path: Path) -> None:
    mp3 = save(tmp_path / "a.mp3", music(10))
    picture = os.urandom(5_000_000)
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = len(frame)
    header = b"ID3\x03\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(header + frame + mp3.read_bytes())
    np.testing.assert_array_equal(analyse(tagged).segments, analyse(mp3).segments)


@pytest.mark.long
def test_a_small_file_that_expands_to_hours_is_refused_before_it_does(tmp_path: Path) -> None:
    file = save(tmp_path / "a.flac", np.zeros(8_000 * 3_600 * 3, np.int16), 8_000)
    assert file.stat().st_size < 1_000_000
    assert "expected at most 7200 s of sound, found more" in error_of(file)


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert "expected a regular file" in error_of(tmp_path / "a.wav")


def test_a_name_in_latin_1(tmp_path: Path) -> None:
    named = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    shutil.copy(save(tmp_path / "a.wav", music(5)), named)
    with Workers(1) as workers:
        assert len(workers.submit(Path(named)).result().segments) > 2


@pytest.mark.skipif(FFMPEG is None, reason="needs ffmpeg")
@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("aac", "aac"), ("mka", "aac"), ("oga", "flac")])
def test_what_libsndfile_cannot_goes_through_ffmpeg(tmp_path: Path, suffix: str, codec: str) -> None:
    wav, coded = save(tmp_path / "a.wav", music(10), 44_100), tmp_path / f"a.{suffix}"
    subprocess.run([str(FFMPEG), "-v", "error", "-i", wav, "-c:a", codec, "-b:a", "128k", coded], check=True)
    expected, found = analyse(wav), analyse(coded)
    assert found.seconds == pytest.approx(expected.seconds, abs=0.1)
    assert np.corrcoef(found.segments.mean(axis=0), expected.segments.mean(axis=0))[0, 1] > 0.99


def test_without_ffmpeg_an_m4a_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Install ffmpeg" in error_of(tmp_path / "a.m4a")


def test_the_noise_of_a_decoder_belongs_to_its_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "a.mp3", music(60))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    file.write_bytes(content)
    sound = save(tmp_path / "b.wav", music(5))
    with Workers(1) as workers:
        damaged, whole = workers.map([file, sound])
    assert not isinstance(whole, AudioError)
    assert whole.warnings == ()
    assert isinstance(damaged, AudioError) or damaged.warnings
    assert capfd.readouterr().err == ""


def test_a_file_that_takes_too_much_is_given_up_and_the_next_one_is_not(tmp_path: Path) -> None:
    long, short = save(tmp_path / "a.wav", np.tile(music(20), 60)), save(tmp_path / "b.wav", music(3))
    with Workers(1, Limits(wall_s=0.001)) as workers, pytest.raises(AudioError, match=r"longer than 0\.001 s"):
        workers.submit(long).result()
    with Workers(1, Limits(most_s=60)) as workers:
        too_long, sound = workers.map([long, short])
    assert isinstance(too_long, AudioError)
    assert "at most 60 s" in str(too_long)
    assert not isinstance(sound, AudioError)


def test_a_worker_that_dies_takes_only_its_file_with_it(tmp_path: Path) -> None:
    file = save(tmp_path / "a.wav", np.tile(music(20), 100))
    with Workers(1, Limits(memory_bytes=2**20)) as workers:
        found = workers.submit(file)
        with pytest.raises(AudioError, match="memory"):
            found.result()


def test_workers_answer_what_one_process_does_in_order(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{n}.wav", music(2 + n % 3, seed=n)) for n in range(8)]
    with Workers(2) as workers:
        for file, found in zip(files, workers.map(files), strict=True):
            assert not isinstance(found, AudioError)
            np.testing.assert_array_equal(found.segments, analyse(file).segments)


def test_an_unreadable_file_has_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(worker, "analyse", refuse)
    monkeypatch.setattr(worker, "limit", lambda *_: None)
    asked = {"path": str(tmp_path / "a.wav"), "most_s": 60, "memory_bytes": 2**30, "processor_s": 60}
    found, arrays = worker._answer(asked)
    assert (found["error"], arrays) == ("not a readable file: Permission denied", [])
