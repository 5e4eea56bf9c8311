"""Segue classifies songs by genre: a fast student answers, and a hard song goes on to the teacher without a pause.

The whole public surface is listed here. Importing it loads neither torch, onnxruntime nor bentoml.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.serving.client import SegueClient as Client
    from segue.serving.model import load as load

# In a checkout, the links segue/data -> ../data and so on make one package of the folders. Where links are lost (a
# Bento, Windows), the folders beside this one take their place; an installed wheel has them inside.
if not (Path(__file__).parent / "data").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

# Name to the module that has it, imported when it is first asked for.
_PUBLIC = {"Client": ("segue.serving.client", "SegueClient"), "load": ("segue.serving.model", "load")}

__all__ = ["Client", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
