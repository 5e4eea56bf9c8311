import asyncio
import re
from pathlib import Path

import httpx
import pytest

from segue.data.analyser.analyse import analyse
from segue.serving.http.pages import AUDIO_SCRIPT, Pages
from tests.data.analyser.recordings import music, save
from tests.serving.conftest import OwnClient, OwnService, nothing


@pytest.fixture
def client(own_service: OwnService, audio_bundle: Path) -> OwnClient:
    return own_service(bundle=audio_bundle, audio=True, max_audio_s=30.0, deadline_s=600.0)


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save(tmp_path_factory.mktemp("wav") / "a.wav", music(8, "dance", seed=3)).read_bytes()


def test_audio_bodies_and_forms_get_genres(client: OwnClient, wav: bytes) -> None:
    answer = client.post(wav, "audio/wav")
    assert answer.status_code == 200, answer.text
    genre = answer.json()["songs"][0]["genre"]
    assert genre.startswith("genre-")
    form = client.http.build_request(
        "POST", "/v1/classify", files=[("f", ("a.wav", wav)), ("f", ("b.mp3", b"shopping list\n" * 99))]
    )
    answer = client.post(form.read(), form.headers["content-type"])
    assert answer.status_code == 200, answer.text
    good, bad = answer.json()["songs"]
    assert (good["id"], good["genre"], bad["id"]) == ("a.wav", genre, "b.mp3")
    assert "expected an audio file" in bad["error"]


def test_text_long_files_and_empty_forms_are_refused(client: OwnClient, tmp_path: Path) -> None:
    assert client.post(b"shopping list\n" * 99, "audio/mpeg").status_code == 422
    answer = client.post(save(tmp_path / "a.flac", music(10), 5_000).read_bytes(), "audio/flac")
    assert answer.status_code == 422
    assert "at most 30 s" in answer.text
    assert client.post(b"--x--\r\n", "multipart/form-data; boundary=x").status_code in (400, 422)
    assert client.post(b"", "multipart/form-data").status_code in (400, 422)


def test_audio_is_off_by_default_and_not_for_bundles_of_segments(
    own_service: OwnService, audio_bundle: Path, wav: bytes
) -> None:
    answer = own_service(bundle=audio_bundle).post(wav, "audio/wav")
    assert (answer.status_code, "SEGUE_AUDIO=true" in answer.text) == (415, True)
    answer = own_service(audio=True).post(wav, "audio/wav")
    assert (answer.status_code, "echonest features" in answer.text) == (415, True)


def test_segments_of_another_analyser_are_refused(client: OwnClient) -> None:
    segment = [0.0] * 25
    songs = [{"id": "a", "segments": [segment] * 120}]
    assert client.classify(songs, features="segue-audio-1").status_code == 200
    answer = client.classify(songs, features="echonest")
    assert (answer.status_code, "expected segue-audio-1 features" in answer.text) == (422, True)


def test_an_answer_for_audio_says_what_was_found_in_the_file(client: OwnClient, wav: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav)
    expected = analyse(tmp_path / "a.wav")
    (song,) = client.post(wav, "audio/wav").json()["songs"]
    assert song["recording"]["seconds"] == pytest.approx(expected.seconds, abs=1e-3)
    assert song["recording"]["segment_starts_s"] == pytest.approx(expected.starts_s.tolist(), abs=1e-3)
    assert song["recording"]["warnings"] == []
    ogg = save(tmp_path / "a.ogg", music(20), 44_100).read_bytes()
    (cut,) = client.post(ogg[: len(ogg) // 2], "audio/ogg").json()["songs"]
    assert "may be cut short" in cut["recording"]["warnings"][0]
    segments = [[0.0] * 25] * 120
    assert "recording" not in client.classify([{"id": "a", "segments": segments}]).json()["songs"][0]


def page_of(takes_audio: bool, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        pages = Pages(nothing, document=dict, metrics=bytes, takes_audio=lambda: takes_audio)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url="http://segue") as http:
            return await http.get(path)

    return asyncio.run(ask())


def test_the_page_takes_a_dropped_file_where_the_server_takes_audio(
    own_service: OwnService, audio_bundle: Path
) -> None:
    assert own_service(bundle=audio_bundle, audio=True).slot.takes_audio
    assert not own_service(bundle=audio_bundle).slot.takes_audio
    assert not own_service(audio=True).slot.takes_audio
    page = page_of(True, "/").text
    assert 'type="file"' in page
    assert "<script>" not in page  # The server's policy lets no script run that lies in the page.
    for path in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert path.startswith(("./static_content/", "data:"))
    assert f'src=".{AUDIO_SCRIPT}"' in page
    assert page_of(True, AUDIO_SCRIPT).headers["content-type"].startswith("text/javascript")
    assert 'type="file"' not in page_of(False, "/").text
