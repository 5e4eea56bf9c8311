"""The floors: imports point down, and what serves never loads torch."""

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
