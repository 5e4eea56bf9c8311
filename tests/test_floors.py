"""The floors: imports point down, and what serves never loads torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]

IMPORT_ALL = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
heavy = {"torch", "onnx", "onnxruntime", "sklearn", "matplotlib", "segue.training", "segue.export"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_nothing_that_serves_loads_torch() -> None:
    modules = [
        ".".join(("segue", *file.relative_to(CHECKOUT).with_suffix("").parts))
        for file in CHECKOUT.glob("serving/**/*.py")
    ]
    assert {"segue.serving.http.service", "segue.serving.cascade"} <= set(modules)
    words = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *modules]
    ended = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_imports_point_down() -> None:
    words = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ended = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert "2 kept, 0 broken" in ended.stdout


def test_every_folder_of_code_is_a_floor_of_the_contract() -> None:
    packages = {file.parent.name for file in CHECKOUT.glob("*/__init__.py")}
    assert packages == {"segue", "data", "training", "export", "serving", "bench"}


def test_the_table_of_folders_in_the_readme_says_what_each_folder_says_of_itself() -> None:
    listed = dict(re.findall(r"^\| \[`([\w/]+)/`\]\(\1\) \| (.*) \|$", (CHECKOUT / "README.md").read_text(), re.M))
    folders = {str(file.parent.relative_to(CHECKOUT)): file for file in CHECKOUT.glob("[a-z]*/**/__init__.py")}
    packages = {name: file for name, file in folders.items() if name.partition("/")[0] not in ("segue", "tests")}
    assert set(listed) - {"segue", "tests"} == set(packages)
    for name, file in packages.items():
        assert ast.get_docstring(ast.parse(file.read_text())) == listed[name]


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    silent = [
        str(file.relative_to(CHECKOUT))
        for floor in ("segue", "data", "training", "export", "serving", "bench")
        for file in (CHECKOUT / floor).glob("**/*.py")
        if not (ast.get_docstring(ast.parse(file.read_text())) or "").strip()
    ]
    assert not silent
