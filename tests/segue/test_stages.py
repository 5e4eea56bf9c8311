"""Stages run once, and again when anything about them changed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segue.stages import Stages, fingerprint, key


@dataclass(frozen=True)
class Settings:
    """The settings of a stage."""

    value: object


class Kitchen:
    """One stage that copies `source` to `output`, and counts how often it did."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.output = folder, folder / "source", folder / "output"
        self.source.write_text("flour")
        self.runs = 0

    def make(self) -> None:
        self.runs += 1
        self.output.write_text(self.source.read_text())

    def stage(self, settings: object = None) -> int:
        stages = Stages(self.folder / "notes")
        stages.run("bake", self.make, settings=Settings(settings), inputs=[self.source], output=self.output)
        return self.runs


def stop_after_output(kitchen: Kitchen) -> None:
    (kitchen.folder / "notes" / "bake.json").unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda kitchen: kitchen.source.write_text("sugar"),
        lambda kitchen: kitchen.output.write_text("burnt"),
        lambda kitchen: kitchen.output.unlink(),
        lambda kitchen: (kitchen.folder / "notes" / "bake.json").write_text("{"),
        stop_after_output,
    ],
)
def test_a_stage_runs_again_when_anything_about_it_changed(tmp_path: Path, change: Callable[[Kitchen], object]) -> None:
    kitchen = Kitchen(tmp_path)
    assert [kitchen.stage(), kitchen.stage()] == [1, 1]
    change(kitchen)
    assert [kitchen.stage(), kitchen.stage()] == [2, 2]


def test_a_stage_runs_again_with_other_settings(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path)
    assert [kitchen.stage(1), kitchen.stage(1), kitchen.stage(2), kitchen.stage(1)] == [1, 1, 2, 3]


def test_a_stage_that_fails_runs_again(tmp_path: Path) -> None:
    kitchen, failed = Kitchen(tmp_path), RuntimeError("no gas")

    def fail() -> None:
        raise failed

    with pytest.raises(RuntimeError, match="no gas"):
        Stages(tmp_path / "notes").run("bake", fail, settings=Settings(None), inputs=[], output=kitchen.output)
    assert kitchen.stage() == 1


def test_a_fingerprint_covers_names_and_contents(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "deep").mkdir(parents=True)
        for name, text in files.items():
            (folder / "deep" / name).write_text(text)
        return fingerprint(folder)

    assert of(a="x") == of(a="x")
    assert len({of(a="x"), of(a="y"), of(b="x"), of(a="x", b=""), of()}) == 5


def test_a_result_is_kept_in_its_note_and_measured_again_when_something_changed(tmp_path: Path) -> None:
    source = tmp_path / "songs"
    measured: list[int] = []
    source.write_text("a")

    def result(value: int) -> object:
        def measure() -> Settings:
            measured.append(value)
            return Settings((value, source))

        return Stages(tmp_path / "notes").result("cell", measure, settings=Settings(value), inputs=[source])

    expected = {"value": [1, str(source)]}
    assert [result(1), result(1)] == [expected, expected]
    assert measured == [1]
    assert result(2) == {"value": [2, str(source)]}
    source.write_text("b")
    result(2)
    (tmp_path / "notes" / "cell.json").write_text("[]")
    result(2)
    assert measured == [1, 2, 2, 2]


def test_a_key_tells_settings_and_inputs_apart_by_content_or_by_stat(tmp_path: Path) -> None:
    source = tmp_path / "songs"
    source.write_text("a")
    one, by_stat = key(Settings(1), [source]), key(Settings(1), [source], by="stat")
    assert one == key(Settings(1), [source])
    assert len({one, by_stat, key(Settings(2), [source]), key(Settings(1), [])}) == 4
    os.utime(source, ns=(1, 1))
    assert key(Settings(1), [source]) == one
    assert key(Settings(1), [source], by="stat") != by_stat
