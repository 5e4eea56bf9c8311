"""The model card: the README.md of a bundle, made from its manifest, for whoever finds the folder."""

from pathlib import Path

from tabulate import tabulate

from segue.serving.bundle.manifest import CARD, PICTURE, RELIABILITY, Evaluation, Form, Manifest
from segue.serving.bundle.write import write_manifest


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the model card and the manifest of a bundle, whose other files are there, and return the manifest."""
    (folder / CARD).write_text(card(manifest), encoding="utf-8")
    return write_manifest(folder, manifest)


def card(manifest: Manifest) -> str:
    """Return the model card as Markdown."""
    found, made = manifest.metrics, manifest.provenance
    seen = {"calibration": "which also set the threshold", "test": "which nothing had seen"}[manifest.metrics_split]
    songs = ", ".join(f"{n:,} {split}" for split, n in manifest.split_songs.items())
    return f"""# Genres for songs: a Segue bundle

A fast student and an accurate teacher that put one of {len(manifest.classes)} genres on a song, from its audio-analysis
segments. The student answers; a song it is unsure of goes on to the teacher: above {manifest.threshold_nats:.3f}
nats{_scales(manifest)}.

Genres: {", ".join(manifest.classes)}.

## Use

`segue serve FOLDER` answers over HTTP, `segue score FOLDER SONGS OUT` scores a catalogue. Each model also works alone:

```python
session = onnxruntime.InferenceSession("{manifest.student.file}")
logits = session.run(["logits"], {{"segments": windows}})[0]  # windows: float32 (n, 120, 25), {manifest.units}
genre = session.get_modelmeta().custom_metadata_map["classes"].split("\\t")[logits[0].argmax()]
```

A segment is {len(manifest.feature_names)} numbers, {manifest.units}, `{manifest.features}` features: 12 timbre,
12 chroma, 1 loudness. A window is 120 segments in a row. Of a longer song the student sees
{manifest.student.windows} at most, the teacher {manifest.teacher.windows}. Logits become probabilities once they are
divided by the temperature in `manifest.json`.

## How good

On {found.songs:,} {manifest.metrics_split} songs, {seen}; {found.fallback_rate:.0%} of them went on to the teacher.

{_metrics(found)}

The threshold: {manifest.guarantee}.
{_ladder(manifest)}
![Accuracy over the share of songs that go on to the teacher]({PICTURE})
![How often answers are right, over how sure the models are]({RELIABILITY})

## Models

Every form of the two models that was tried. Songs/s are one window a song, on {made.machine}.

{_forms(manifest)}

- student: {how_right(manifest.student.form)}
- teacher: {how_right(manifest.teacher.form)}

## Data

Songs: {songs}. sha256 of the table that trained the models: `{manifest.songs_sha256[:12]}`, of the one that set the
threshold: `{manifest.calibration_sha256[:12]}`. Songs of other kinds, places and times are another matter: measure with
`segue evaluate`, set the threshold with `segue calibrate`.

Licence: {manifest.licence}.

Made {made.time[:10]} by commit {made.commit}. `manifest.json` has the whole story and a sha256 for every file.
"""


def _scales(manifest: Manifest) -> str:
    scales = manifest.class_scales
    return f" times {min(scales):.2g} to {max(scales):.2g} by the genre it says" if scales else ""


def _ladder(manifest: Manifest) -> str:
    """Say which rungs there are, where they are not the usual two, whose answer stands, and what was left out."""
    what = {
        "teacher": "the last rung's answer",
        "surer": "the answer of the smallest cross-entropy",
        "mean": "the mean",
    }
    parts = []
    if manifest.rungs:
        rows = [
            (name, rung.windows, "" if rung.threshold_nats is None else f"{rung.threshold_nats:.3f}")
            for name, rung in zip(manifest.rung_names, manifest.rungs, strict=True)
        ]
        parts.append(tabulate(rows, ("rung", "windows", "goes on above (nats)"), tablefmt="github"))
    if manifest.rungs or manifest.on_fallback != "teacher":
        parts.append(f"What stands of a song that went on is {what[manifest.on_fallback]}.")
    if manifest.left_out:
        parts.append("Left out:\n\n" + "\n".join(f"- {reason}" for reason in manifest.left_out))
    return "".join(f"\n{part}\n" for part in parts)


def _metrics(found: Evaluation) -> str:
    rows = [
        (name, f"{one.accuracy:.3f}", f"{one.nll:.3f}", f"{one.ece:.3f}")
        for name, one in (("student", found.student), ("teacher", found.teacher), ("cascade", found.cascade))
    ]
    return tabulate(rows, ("", "accuracy", "nll", "ece"), tablefmt="github", disable_numparse=True)


def _forms(manifest: Manifest) -> str:
    batches = manifest.student.form.songs_per_s
    rows = [
        (
            name,
            entry.network["shape"],
            form_name(form),
            *(f"{form.songs_per_s[batch]:,.0f}" if form.songs_per_s else "" for batch in batches),
            form.why_not or f"**{entry.file}**",
        )
        for name, entry in (("student", manifest.student), ("teacher", manifest.teacher))
        for form in (entry.form, *entry.rejected)
    ]
    headers = ("", "network", "form", *(f"songs/s, {batch} at a time" for batch in batches), "shipped, or why not")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def form_name(form: Form) -> str:
    """Return the name of a form."""
    return " ".join(part for part in (form.lowering, form.precision) if part)


def how_right(form: Form) -> str:
    """Say how closely a form keeps to the trained network."""
    if form.parity:
        songs = f"{form.parity.songs:,} songs and {form.parity.edge_songs} edge cases"
        return f"logits within {form.parity.difference:.1e} of the trained network's on {songs}"
    if not form.rounding:
        return "not compared"
    low, high = form.rounding.lost_points_between
    return (
        f"rounded, the same genre as in fp32 for {form.rounding.agreement:.1%} of {form.rounding.songs:,} validation "
        f"songs, {form.rounding.lost_points:.1f} points of accuracy lost ({low:.1f} to {high:.1f})"
    )
