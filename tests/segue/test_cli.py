"""The command line: every verb answers, and a mistake says what to do."""

import re
import runpy
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from segue import cli

verbs = pytest.mark.parametrize("verb", cli.VERBS)


def test_help_lists_the_verbs_in_the_order_of_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(argv) == 0
        printed = capsys.readouterr().out
        listed = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
        assert listed == list(cli.VERBS)
    assert all(summary in printed for _, summary in cli.VERBS.values())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("segue-genres")


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("evalute", "Did you mean evaluate?"),
        ("train_teacher", "Did you mean train-teacher?"),
        ("zzz", "\nusage: segue"),
    ],
)
def test_an_unknown_verb_is_bad_usage(verb: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb]) == 2
    printed = capsys.readouterr()
    assert f"segue: there is no verb {verb!r}." in printed.err
    assert hint in printed.err
    assert printed.out == ""


@verbs
def test_every_verb_has_a_manual_and_a_main(verb: str) -> None:
    module = import_module(cli.VERBS[verb][0])
    assert callable(module.main)
    assert f"segue {verb}" in (module.__doc__ or "")


@verbs
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        cli.main([verb, "--help"])
    assert exit_of.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: segue {verb}" in printed
    assert "--json" in printed


@verbs
def test_every_verb_is_a_module_to_run(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = cli.VERBS[verb][0]
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # Or runpy warns that it runs a second copy.
    with pytest.raises(SystemExit) as exit_of:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert exit_of.value.code == 0
    assert f"usage: segue {verb}" in capsys.readouterr().out


@verbs
def test_an_unknown_option_is_bad_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        cli.main([verb, "--no-such-option"])
    assert exit_of.value.code == 2
    printed = capsys.readouterr()
    # Boxed, and on a line of its own where several things are wrong.
    assert re.search(rf"run:?[\s│|]+segue {verb} --help", printed.err)
    assert printed.out == ""


def test_a_mistake_of_the_user_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "segue", "score", "no-bundle", "songs.arrow", "out.csv"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    expected = "segue score: no-bundle: expected a bundle, found no such folder. `segue export` makes one.\n"
    assert ended.stderr == expected


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "segue", "synth", str(tmp_path / "songs.arrow"), "--songs", "20"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as verb:
        assert verb.stdout
        assert verb.stderr
        verb.stdout.close()
        assert "Traceback" not in verb.stderr.read()
    assert verb.returncode == 0


def test_ctrl_c_while_a_verb_is_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", stop)
    assert cli.main(["evaluate", "a", "b"]) == 130
    assert capsys.readouterr() == ("", "segue evaluate: stopped before it began\n")


@pytest.mark.parametrize("library", sorted(cli.EXTRAS))
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError(f"No module named '{library}.part'", name=f"{library}.part")

    monkeypatch.setattr(cli, "import_module", fail)
    assert cli.main(["train-teacher", "songs.arrow"]) == 1
    extra = cli.EXTRAS[library]
    expected = f"segue train-teacher: {library} is not installed: `pip install 'segue-genres[{extra}]'`\n"
    assert capsys.readouterr() == ("", expected)


def test_a_library_of_the_base_install_that_is_missing_is_a_fault_of_the_installation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(cli, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["score", "bundle", "songs.arrow"])


@verbs
def test_help_shows_units_and_no_none(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    assert "None" not in capsys.readouterr().out
