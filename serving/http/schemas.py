"""What requests and answers look like, for the OpenAPI document; the data path itself builds none of these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segue.data.song import N_FEATURES, Features
from segue.serving.http.bodies import ARROW, JSON, NPY, RAW, SONG_BYTES
from segue.serving.http.dial import Mode
from segue.serving.predictions import ModelName

EXAMPLE_SEGMENT = [45, *[0] * 11, *[0.5] * 12, -20]
DIAL = {
    "threshold": "Nats above which a song falls back to the teacher.",
    "mode": "fast: student only; balanced: the bundle's threshold; accurate: the teacher is asked about all songs.",
}
EXAMPLE_REQUEST: Any = {"songs": [{"id": "try-me", "segments": [EXAMPLE_SEGMENT]}]}
EXAMPLE_RESPONSE: Any = {
    "songs": [
        {
            "id": "try-me",
            "genre": "Jazz",
            "probabilities": {"Jazz": 0.9, "Folk": 0.1},
            "cross_entropy_nats": 0.105,
            "answered_by": "teacher",
            "rung": 2,
            "windows": 1,
            "degraded": False,
        },
        {
            "id": "too-loud",
            "error": "song 'too-loud', segment 0: expected loudness_start_db between -60 and 0, found 3",
        },
    ],
    "bundle": "fc1c3a0f6665",
    "mode": "balanced",
    "threshold": 0.3,
}


class SongIn(BaseModel):
    """A song."""

    model_config = ConfigDict(extra="forbid")

    id: str
    segments: list[list[float]] = Field(
        min_length=1,
        description="One row a segment, in time order: 12 timbre, 12 chroma (0..1), loudness (dB, -60..0).",
        json_schema_extra={
            "items": {"type": "array", "minItems": N_FEATURES, "maxItems": N_FEATURES, "items": {"type": "number"}}
        },
    )


class ClassifyRequest(BaseModel):
    """The JSON body of `POST /v1/classify`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE_REQUEST})

    songs: list[SongIn] = Field(min_length=1)
    threshold: float | None = Field(None, ge=0, description=DIAL["threshold"])
    mode: Mode | None = Field(None, description=DIAL["mode"])
    features: Features | None = Field(None, description="Which analyser made the segments: the bundle's.")


class Recording(BaseModel):
    """What was found in an audio file."""

    seconds: float
    segment_starts_s: list[float] = Field(description="Where its segments begin, in seconds.")
    warnings: list[str] = Field(description="What is odd about the file, though it could be decoded.")


class Answer(BaseModel):
    """The answer for one song."""

    id: str
    genre: str
    probabilities: dict[str, float]
    cross_entropy_nats: float = Field(description="-log of the largest probability: 0 is certain.")
    answered_by: ModelName
    rung: int = Field(description="Of the ladder, which the answer comes from; 1 is the first.")
    windows: int = Field(description="How many windows of 120 segments that rung looked at.")
    degraded: bool = Field(
        description="The song went on to a rung that was in trouble: this is the answer of one below."
    )
    recording: Recording | None = Field(None, description="Of audio files only.")


class SongError(BaseModel):
    """What is wrong with one song."""

    id: str
    error: str


class ClassifyResponse(BaseModel):
    """The answers, in the order of the songs."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_RESPONSE})

    songs: list[Answer | SongError]
    bundle: str = Field(description="Version of the bundle that answered.")
    mode: Literal["fast", "balanced", "accurate", "threshold"]
    threshold: float | None = Field(description="Nats; null where the mode asks no threshold.")


class Problem(BaseModel):
    """Why a request gets no answer."""

    error: str


class Reloaded(BaseModel):
    """The bundle that answers from now on."""

    bundle: str


def _without_references(model: type[BaseModel]) -> Any:
    """Return the schema of a request body; FastAPI puts only the models of answers where references lead to."""
    schema = model.model_json_schema(ref_template="{model}")
    models = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            return models[part["$ref"]] if "$ref" in part else {name: resolved(one) for name, one in part.items()}
        return [resolved(one) for one in part] if isinstance(part, list) else part

    return resolved(schema)


def _binary(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {"schema": _without_references(ClassifyRequest), "example": EXAMPLE_REQUEST},
        RAW: _binary(f"float32, little-endian, n x 120 x 25: {SONG_BYTES} bytes a song."),
        NPY: _binary("What numpy.save writes of (n, 120, 25), (n, 3000), or one song (segments, 25)."),
        "audio/mpeg": _binary("An audio file: mp3, flac, wav, ogg, opus, aiff. Only where the server takes audio."),
        "multipart/form-data": _binary("Several audio files."),
        ARROW: _binary("The song table (song_id, segments) as an Arrow IPC stream without compression."),
    },
}
