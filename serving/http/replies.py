"""The answer to a request, as JSON or as an Arrow IPC stream."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from segue.serving.bundle.manifest import Manifest
from segue.serving.http.bodies import ARROW, JSON
from segue.serving.http.dial import Setting
from segue.serving.http.engine import Said
from segue.serving.http.refusal import Refusal
from segue.serving.predictions import NOT_A_NUMBER

WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class Reply:
    """What became of each song of a request."""

    song_ids: Sequence[str]
    errors: Mapping[int, str]  # By place; every other song has an answer, in order.
    answers: Sequence[dict[str, Any]]  # The fields of those.
    manifest: Manifest
    setting: Setting
    recordings: Mapping[int, Any] = field(default_factory=dict)  # What is told of an audio file, by place; JSON only.

    @classmethod
    def of(cls, said: Said, manifest: Manifest, setting: Setting) -> "Reply":
        """Return a reply in which a song that no model has the predictions for has an error."""
        song_ids = said.songs.song_ids
        errors = {place: str(error) for place, error in said.songs.errors.items()}
        answers = [] if said.batch is None else said.batch.named[said.rows]
        if said.batch is not None and said.batch.has_unknown:
            places = [place for place in range(len(song_ids)) if place not in errors]
            known = [one["cross_entropy_nats"] == one["cross_entropy_nats"] for one in answers]  # A NaN is not itself.
            errors |= {
                place: f"song {song_ids[place]!r}: {NOT_A_NUMBER}"
                for place, is_known in zip(places, known, strict=True)
                if not is_known
            }
            answers = [one for one, is_known in zip(answers, known, strict=True) if is_known]
        return cls(song_ids, errors, answers, manifest, setting, said.songs.recordings)

    @property
    def status(self) -> int:
        """200 if at least one song has an answer."""
        return 200 if self.answers else 422

    def rows(self, id_name: str) -> list[dict[str, Any]]:
        """Return each song's answer or error, with its id, called `id_name`."""
        answers = iter(self.answers)
        return [
            {id_name: song_id, "error": self.errors[place]}
            if place in self.errors
            else {id_name: song_id, **next(answers)}
            for place, song_id in enumerate(self.song_ids)
        ]


def media_type(accept: str) -> str:
    """Return the type of answer that an Accept header likes best; a `Refusal` if it takes neither of ours.

    A type named in full counts before a range such as `*/*`, as RFC 9110 12.5.1 says, and one of weight 0 is never
    sent. Arrow is sent only where it is named, and then before JSON of the same weight.
    """
    weights: dict[str, float] = {}
    for one in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        if not kind:
            continue
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                if not WEIGHT.fullmatch(value.strip()):
                    raise Refusal(
                        406, "unsupported type", f"accept: expected q=0 to q=1, found q={value.strip()!r:.20}"
                    )
                weight = float(value)
        weights[kind] = weight
    arrow = weights.get(ARROW, 0.0)
    json = next((weights[kind] for kind in (JSON, "application/*", "*/*") if kind in weights), 0.0)
    if max(arrow, json) == 0:
        raise Refusal(406, "unsupported type", f"accept: expected {JSON} or {ARROW}, found neither")
    return ARROW if arrow >= json else JSON


def encode(reply: Reply, kind: str) -> bytes:
    """Return a reply as `kind`, one of `media_type`'s."""
    return _to_arrow(reply) if kind == ARROW else _to_json(reply)


def _to_json(reply: Reply) -> bytes:
    songs = reply.rows("id")
    for place, recording in reply.recordings.items():
        songs[place]["recording"] = recording
    return orjson.dumps(
        {
            "songs": songs,
            "bundle": reply.manifest.version,
            "mode": reply.setting.name,
            "threshold": reply.setting.shown_nats,
        }
    )


def _to_arrow(reply: Reply) -> bytes:
    """Write the columns of `segue score`, and degraded and error; where error is not null, the others are."""
    classes = reply.manifest.classes
    probabilities = pa.struct([pa.field(name, pa.float32()) for name in classes])
    schema = pa.schema(
        [
            pa.field("song_id", pa.string(), nullable=False),
            pa.field("genre", pa.string()),
            pa.field("cross_entropy_nats", pa.float32()),
            pa.field("answered_by", pa.string()),
            pa.field("probabilities", probabilities),
            pa.field("rung", pa.int64()),
            pa.field("windows", pa.int64()),
            pa.field("degraded", pa.bool_()),
            pa.field("error", pa.string()),
        ],
        {
            "segue.bundle": reply.manifest.version,
            "segue.mode": reply.setting.name,
            "segue.threshold": orjson.dumps(reply.setting.shown_nats),
        },
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.Table.from_pylist(reply.rows("song_id"), schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content
