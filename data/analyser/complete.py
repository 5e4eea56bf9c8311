"""Whether a file holds all the sound that it says it does: decoders pass over what is missing without a word."""

import mmap
from pathlib import Path
from typing import Literal

Format = Literal["mp3", "flac", "wav", "ogg", "ogg flac", "aiff", "m4a", "aac", "matroska", "asf", "other"]

_MPEG_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_1 = {
    3: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_KBITS_2 = {
    3: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    1: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LAYER_3 = 1
_TAGS_AT_THE_END = (b"TAG", b"APETAGEX", b"LYRICS", b"ID3", b"3DI")


def sniff(head: bytes) -> Format | None:
    """Tell the format of a file by its first kilobyte or so; None if it does not look like sound."""
    if head.startswith((b"ID3", b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"\x1aE\xdf\xa3", b"0&\xb2u")):
        if head.startswith((b"RIFF", b"RF64")):
            return "wav" if head[8:12] == b"WAVE" else None
        if head.startswith(b"FORM"):
            return "aiff" if head[8:11] == b"AIF" else None
        if head.startswith(b"OggS") and b"\x7fFLAC" in head[:64]:
            return "ogg flac"
        named: dict[bytes, Format] = {b"ID3": "mp3", b"fLaC": "flac", b"OggS": "ogg", b"\x1aE\xdf": "matroska"}
        return named.get(head[:3]) or named.get(head[:4]) or "asf"
    if head[4:8] == b"ftyp":
        return "m4a"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    at = next((i for i in range(min(len(head) - 4, 1024)) if head[i]), 0)  # Some encoders put zeros first.
    frame = _mpeg_frame(head, at)
    if frame and (at + frame[0] + 4 > len(head) or _mpeg_frame(head, at + frame[0])):
        return "mp3"
    return "other" if head.startswith((b"caff", b".snd", b"riff", b"wvpk", b"MAC ")) else None


def stated_seconds(path: Path, form: Format) -> tuple[float | None, bool]:
    """Return how long the sound of a file is by its own headers, None where they do not say, and whether it is cut."""
    with path.open("rb") as file:
        if not (path.stat().st_size and form in ("mp3", "wav", "ogg")):
            return None, False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if form == "mp3":
                return _mp3(content)
            return _wav(content) if form == "wav" else (None, _ogg_is_cut(content))


def _mp3(content: mmap.mmap) -> tuple[float | None, bool]:
    """Walk the frames of an MPEG audio file; a Xing, Info or VBRI header says how many there were."""
    at = _after_id3(content)
    n_frames, stated, samples, rate = 0, 0, 1152, 44_100
    end = len(content)
    while at + 4 <= end:
        frame = _mpeg_frame(content, at)
        if frame is None or (not n_frames and at + frame[0] + 4 < end and not _mpeg_frame(content, at + frame[0])):
            if content[at : at + 8].startswith(_TAGS_AT_THE_END):
                break
            at = content.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        length, samples, rate = frame
        if not n_frames:
            stated = _stated_frames(content[at : at + min(length, 200)])
        if at + length > end:
            return max(stated, n_frames) * samples / rate, True
        n_frames += 1
        at += length
    return (max(stated, n_frames) * samples / rate, False) if n_frames else (None, False)


def with_length(path: Path, seconds: float) -> bytes:
    """Return the content of an mp3 behind a Xing header that says how long it is.

    Without one, libsndfile guesses the length from the first frame, and reads no further than that.
    """
    content = path.read_bytes()
    at = 0
    while _mpeg_frame(content, at) is None:
        at = content.index(b"\xff", at + 1)
    header = bytes([0xFF, content[at + 1] | 1, content[at + 2] & 0x0F | 0x90, content[at + 3]])  # No checksum.
    length, samples, rate = _mpeg_frame(header, 0) or (0, 1152, 44_100)
    is_mpeg_1, is_mono = header[1] & 0x18 == 0x18, header[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if is_mpeg_1 else (9 if is_mono else 17)
    frames = round(seconds * rate / samples)
    tag = header + bytes(side_bytes) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return tag.ljust(length, b"\0") + content[at:]


def _after_id3(content: mmap.mmap) -> int:
    at = 0
    while content[at : at + 3] == b"ID3":
        size = 0
        for byte in content[at + 6 : at + 10]:
            size = size << 7 | byte & 127
        at += 10 + size
    return at


def _mpeg_frame(content: bytes | mmap.mmap, at: int) -> tuple[int, int, int] | None:
    """Return bytes, samples and sampling rate of the MPEG audio frame whose header is at `at`; None: there is none."""
    if at + 4 > len(content) or content[at] != 0xFF or content[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = content[at + 1] >> 3 & 3, content[at + 1] >> 1 & 3
    bitrate, rate_index, padding = content[at + 2] >> 4, content[at + 2] >> 2 & 3, content[at + 2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate_index == 3:
        return None
    rate = _MPEG_RATES_HZ[version][rate_index]
    bits = (_KBITS_1 if version == 3 else _KBITS_2)[layer][bitrate - 1] * 1000
    if layer == 3:
        return (12 * bits // rate + padding) * 4, 384, rate
    samples = 576 if layer == _LAYER_3 and version != 3 else 1152
    return samples // 8 * bits // rate + padding, samples, rate


def _stated_frames(frame: bytes) -> int:
    """Return how many frames a Xing, Info or VBRI header says there are; 0 where the frame has none."""
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at > 0 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    at = frame.find(b"VBRI")
    return int.from_bytes(frame[at + 14 : at + 18], "big") if at > 0 else 0


def _wav(content: mmap.mmap) -> tuple[float | None, bool]:
    """Compare the size that the data chunk states with what there is."""
    at, bytes_a_second = 12, 0
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"fmt ":
            bytes_a_second = int.from_bytes(content[at + 16 : at + 20], "little")
        if name == b"data":
            streamed = size in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36) or not bytes_a_second
            return (None, False) if streamed else (size / bytes_a_second, at + 8 + size > len(content))
        at += 8 + size + size % 2
    return None, False


def _ogg_is_cut(content: mmap.mmap) -> bool:
    """Tell whether the last page of an Ogg stream is missing, or not whole."""
    at = content.rfind(b"OggS")
    if at < 0 or at + 27 > len(content) or not content[at + 5] & 4:
        return True
    n_parts = content[at + 26]
    parts = content[at + 27 : at + 27 + n_parts]
    return len(parts) < n_parts or at + 27 + n_parts + sum(parts) > len(content)
