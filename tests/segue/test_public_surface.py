"""The public surface: exactly what `__all__` lists, and cheap to import."""

import inspect
import subprocess
import sys

import segue

HEAVY = ("torch", "onnxruntime", "bentoml", "pyarrow", "numpy")


def test_the_public_surface_is_what_all_lists() -> None:
    public = {name for name in vars(segue) if not name.startswith("_") and not inspect.ismodule(vars(segue)[name])}
    assert public <= {"import_module", "Path", "TYPE_CHECKING", "Any", *segue.__all__}
    assert set(segue.__all__) == {"Client", "load"}
    assert set(segue.__all__) <= set(dir(segue))
    for name in segue.__all__:
        assert getattr(segue, name).__doc__


def test_import_segue_loads_nothing_heavy() -> None:
    code = f"import sys, segue; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
