"""Sealing a bundle: the hashes of its files, the version that they name, and the manifest that says both."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from segue.serving.bundle.manifest import MANIFEST, Manifest, version_of


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the files of a bundle, name its version by them, write the manifest, and return it."""
    hashes = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.name != MANIFEST
    }
    named = replace(manifest, sha256=hashes, version="")
    sealed = replace(named, version=version_of(json.loads(json.dumps(asdict(named)))))
    (folder / MANIFEST).write_text(json.dumps(asdict(sealed), indent=2) + "\n", encoding="utf-8")
    return sealed
