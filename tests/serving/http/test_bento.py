"""The Bento: holds what serving needs and nothing else, and answers from any folder."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bentoml.exceptions import BentoMLException

from segue.data.song import Songs
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import open_cascade
from segue.serving.http.bento import check_bundle_inside
from segue.serving.releases.store import ReleaseStore
from tests.support.bundles import CLASSES
from tests.support.random_songs import random_segments
from tests.support.server import environment, free_port, serving

CHECKOUT = Path(__file__).parents[3]
NAME = "segue-cascade"


@pytest.mark.slow
def test_the_bento_of_a_release_answers_like_its_cascade_from_any_folder(bundle: Path, tmp_path: Path) -> None:
    checkout, elsewhere, env = tmp_path / "checkout", tmp_path / "elsewhere", environment(tmp_path / "home")
    elsewhere.mkdir()
    for folder in ("segue", "data", "serving"):
        shutil.copytree(
            CHECKOUT / folder, checkout / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(CHECKOUT / "bentofile.yaml", checkout)
    (checkout / "notes.txt").write_text("not for the Bento")
    store = ReleaseStore(tmp_path / "releases")
    store.publish(bundle, "the first")
    fetched = ["segue", "releases", "fetch", store.where, "latest", "artifacts/bundle"]
    subprocess.run([sys.executable, "-m", *fetched], cwd=checkout, env=env, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "bentoml", "build"], cwd=checkout, env=env, check=True, capture_output=True)

    (source,) = (tmp_path / "home" / "bentos" / NAME).glob("*/src")
    packed = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    assert {"serving/http/service.py", "data/song.py", "artifacts/bundle/manifest.json"} <= packed
    assert {name.split("/")[0] for name in packed} == {"segue", "data", "serving", "artifacts", "bentofile.yaml"}
    shutil.rmtree(checkout)

    songs = [random_segments(n, seed=n) for n in (90, 120, 400)]
    port = free_port()
    words = ["bentoml", "serve", f"{NAME}:latest", "--host", "127.0.0.1", "--port", str(port)]
    with serving(words, port, elsewhere, env) as server:
        body = server.classify([{"id": str(row), "segments": song.tolist()} for row, song in enumerate(songs)])
    loaded = load_bundle(bundle)
    expected = open_cascade(loaded).answer(Songs.of(songs))
    assert (body["bundle"], body["threshold"]) == (loaded.manifest.version, loaded.manifest.threshold_nats)
    assert [one["genre"] for one in body["songs"]] == [CLASSES[choice] for choice in expected.choice]
    for one, cross_entropy in zip(body["songs"], expected.cross_entropy_nats, strict=True):
        assert one["cross_entropy_nats"] == pytest.approx(cross_entropy, abs=1e-5)


def env(value: str) -> SimpleNamespace:
    return SimpleNamespace(name="SEGUE_BUNDLE", value=value)


def test_a_bento_without_its_bundle_is_not_built(bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "artifacts" / "bundle"
    with pytest.raises(
        BentoMLException, match=r"no bundle at artifacts/bundle: .* found no such folder.*follows no links"
    ):
        check_bundle_inside(tmp_path, [env("artifacts/bundle")])
    shutil.copytree(bundle, there)
    check_bundle_inside(tmp_path, [env("artifacts/bundle")])
    check_bundle_inside(tmp_path, [])
    (there / "teacher.onnx").unlink()
    with pytest.raises(BentoMLException, match=r"the file teacher\.onnx is missing"):
        check_bundle_inside(tmp_path, [env("artifacts/bundle")])
    (there / "teacher.onnx").symlink_to(bundle / "teacher.onnx")
    with pytest.raises(BentoMLException, match=r"expected files, found links: teacher\.onnx"):
        check_bundle_inside(tmp_path, [env("artifacts/bundle")])
    check_bundle_inside(tmp_path, [env("/mounted/where/it/runs")])


@pytest.mark.slow
@pytest.mark.parametrize("place", ["artifacts", "artifacts/bundle"])
def test_a_build_with_a_link_in_place_of_the_bundle_fails(bundle: Path, tmp_path: Path, place: str) -> None:
    checkout, env = tmp_path / "checkout", environment(tmp_path / "home")
    for folder in ("segue", "data", "serving"):
        shutil.copytree(
            CHECKOUT / folder, checkout / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(CHECKOUT / "bentofile.yaml", checkout)
    elsewhere = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(bundle, elsewhere)
    (checkout / place).parent.mkdir(exist_ok=True)
    (checkout / place).symlink_to(elsewhere if place.endswith("bundle") else elsewhere.parent)
    build = subprocess.run(
        [sys.executable, "-m", "bentoml", "build"], cwd=checkout, env=env, capture_output=True, text=True
    )
    assert build.returncode != 0
    assert "the Bento would have no bundle at artifacts/bundle" in build.stdout + build.stderr
    assert not [*(tmp_path / "home" / "bentos").glob(f"{NAME}/*")]
