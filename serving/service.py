"""The HTTP service: one BentoML service with both models in it and a FastAPI app for the data path.

`POST /v1/classify` puts a genre on songs. A song that breaks the contract gets an error of its own and never fails its
neighbours. The bundle is the folder that the environment variable SEGUE_BUNDLE names, by default `artifacts/bundle`;
SEGUE_WINDOWS overrides how many windows of a song the models see. Start it with `segue serve`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from fastapi import FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.exceptions import HTTPException

from data.errors import SongError
from data.song import N_FEATURES, Floats, check_segments
from serving.bundle import load_bundle
from serving.cascade import NOT_A_NUMBER, AnsweredBy, Answers, open_cascade

DEFAULT_BUNDLE = Path("artifacts/bundle")
MOST_SONGS = 1024  # In one request.
TIMEOUT_S = 60

SEGMENTS_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "description": "One row a segment, in time order: 12 timbre, 12 chroma (0..1), loudness at the start (dB, -60..0).",
    "items": {"type": "array", "minItems": N_FEATURES, "maxItems": N_FEATURES, "items": {"type": "number"}},
}


def _encodable(text: str) -> str:
    """Refuse half a surrogate pair: JSON can carry one in, and no answer can carry it out."""
    text.encode()
    return text


class SongToClassify(BaseModel):
    """A song as it comes in. Its segments are checked by `data.song.check_segments`, like everywhere."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, AfterValidator(_encodable)]
    segments: Annotated[Any, WithJsonSchema(SEGMENTS_SCHEMA)]


class ClassifyRequest(BaseModel):
    """The body of `POST /v1/classify`."""

    model_config = ConfigDict(extra="forbid")

    songs: list[SongToClassify] = Field(min_length=1, max_length=MOST_SONGS)
    threshold: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Nats above which a song falls back. Default: the bundle's."
    )


class Answer(BaseModel):
    """The answer for one song."""

    id: str
    genre: str
    probabilities: dict[str, float]
    cross_entropy_nats: float = Field(description="-log of the largest probability: 0 is certain.")
    answered_by: AnsweredBy
    windows: int = Field(description="How many windows of 120 segments were looked at.")


class Refusal(BaseModel):
    """What is wrong with one song."""

    id: str
    error: str


class ClassifyResponse(BaseModel):
    """The answers, in the order of the songs."""

    songs: list[Answer | Refusal]
    bundle: str = Field(description="Version of the bundle that answered.")
    threshold: float


class Problem(BaseModel):
    """What is wrong with a request."""

    error: str


app = FastAPI(title="Segue", description="Genres for songs.", docs_url=None, redoc_url=None, openapi_url=None)


@app.exception_handler(RequestValidationError)
def _refuse(_: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong with a body, without repeating the body."""
    problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"error": "; ".join(problems)}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.exception_handler(HTTPException)
def _explain(_: Request, error: HTTPException) -> JSONResponse:
    """Say what went wrong before the body could be read, in the same shape."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@bentoml.service(
    name="segue-cascade",
    traffic={"timeout": TIMEOUT_S},
    tracing={"excluded_urls": [".*"]},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class GenreService:
    """Answers over HTTP with the cascade of one bundle."""

    def __init__(self) -> None:
        """Verify the bundle and load both models."""
        self._bundle = load_bundle(Path(os.environ.get("SEGUE_BUNDLE", DEFAULT_BUNDLE)))
        windows = os.environ.get("SEGUE_WINDOWS")
        self._cascade = open_cascade(self._bundle, windows=int(windows) if windows else None)

    @app.post("/v1/classify", tags=["Service APIs"], responses={422: {"model": ClassifyResponse | Problem}})
    def classify(self, body: ClassifyRequest, response: Response) -> ClassifyResponse:
        """Put a genre on each song. 200 if at least one song could be answered, 422 if none could."""
        threshold = self._cascade.threshold_nats if body.threshold is None else body.threshold
        manifest = self._bundle.manifest
        results: dict[int, Answer | Refusal] = {}
        sound: dict[int, Floats] = {}
        for place, song in enumerate(body.songs):
            try:
                sound[place] = check_segments(song.segments, song.id, manifest.units)
            except SongError as error:
                results[place] = Refusal(id=song.id, error=str(error))
        if sound:
            answers = self._cascade.answer(list(sound.values()), threshold)
            for row, place in enumerate(sound):
                results[place] = _result(body.songs[place].id, answers, row, manifest.classes)
        if not any(isinstance(result, Answer) for result in results.values()):
            response.status_code = status.HTTP_422_UNPROCESSABLE_CONTENT
        in_order = [results[place] for place in range(len(body.songs))]
        return ClassifyResponse(songs=in_order, bundle=manifest.version, threshold=threshold)


def _result(song_id: str, answers: Answers, row: int, classes: Sequence[str]) -> Answer | Refusal:
    if np.isnan(answers.cross_entropy_nats[row]):
        return Refusal(id=song_id, error=f"song {song_id!r}: {NOT_A_NUMBER}")
    return Answer(
        id=song_id,
        genre=classes[answers.choice[row]],
        probabilities=dict(zip(classes, answers.probs[row].tolist(), strict=True)),
        cross_entropy_nats=float(answers.cross_entropy_nats[row]),
        answered_by=answers.answered_by(row),
        windows=int(answers.windows[row]),
    )
