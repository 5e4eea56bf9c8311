"""What can be set about the service: one dataclass, read from environment variables that begin with SEGUE_."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from tyro.conf import Suppress

from segue.command import unset
from segue.errors import ConfigError
from segue.serving.runtime import Provider

PREFIX = "SEGUE_"

Trouble = Literal["degrade", "refuse"]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0)]
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda text: [word for word in text.split(",") if word] if isinstance(text, str) else text),
]


@dataclass(frozen=True)
class Settings:
    """Settings of the service. The environment variable of a field is SEGUE_ and its name in capitals."""

    bundle: Suppress[Path] = Path("artifacts/bundle")  # The bundle's folder; a reload reads it again.
    releases: Suppress[str] = ""  # A release store; its latest release is served instead of `bundle`, and followed.
    # Windows of a song that both models see, at most, instead of what the bundle says.
    windows: Annotated[Count | None, unset("INT")] = None
    shadow: Annotated[Path | None, unset("BUNDLE")] = None  # A challenger that is asked too, and only counted.
    shadow_share: Share = 0.1  # Share of the requests that the challenger is asked about.
    provider: Provider = "auto"  # Where the models run; auto takes a GPU where there is one.
    # Processes that answer. Default: one for each core that may be used, and one where the models run on a GPU.
    workers: Annotated[Count | None, unset("INT")] = None
    threads: Count = 1  # Threads of each model, in each worker; at small batches one is faster than two.
    max_body_bytes: Count = 32 * 2**20  # Largest body, as received and after gzip.
    max_songs: Count = 1024  # Most songs of a request.
    max_requests: Count = 256  # Most requests in flight, in each worker; more get 503, and soon. More only wait longer.
    max_waiting_songs: Count = 4096  # Most songs that wait for a model, in each worker; more get 503.
    batch_songs: Count = 256  # A model's batch takes waiting requests until it has this many songs.
    deadline_s: Seconds = 10.0  # A request whose answer takes longer, from when its body is there, gets 504.
    max_connections: Count = 1000  # Most connections, in each worker; one that only waits is closed for a new one.
    max_header_bytes: Count = 32_768  # Largest head of a request; a larger one gets 431.
    header_s: Seconds = 10.0  # A head that takes longer, from its first byte, gets 408.
    least_body_rate: Count = 4096  # Bytes a second; a body that comes more slowly, for 5 seconds, gets 408.
    idle_s: Seconds = 75.0  # A connection without a request is closed after that.
    teacher_timeout_s: Seconds = 5.0  # A teacher that takes longer has failed.
    when_teacher_fails: Trouble = "degrade"  # The student's answer, marked as degraded; or 503.
    when_teacher_is_full: Trouble = "degrade"  # The same, when too many songs wait for the teacher.
    ready_without_teacher: bool = True  # Whether /readyz says yes when the teacher could not be loaded.
    lowest_threshold: Nats = 0.0  # Nats; the lowest a request may ask for. Above 0: no mode=accurate.
    highest_threshold: Nats = float("inf")  # The highest. If finite: no mode=fast.
    audio: bool = False  # Whether audio files are taken, by a bundle of audio; they are analysed in worker processes,
    audio_workers: Count = 1  # so many for each worker of the server,
    max_audio_s: Seconds = 900.0  # and refused where they last longer.
    tokens: Suppress[
        Words
    ] = ()  # Bearer tokens, `name=token,...`. The one called admin may reload; any other may classify.
    tokens_file: Annotated[Path | None, unset("PATH")] = None  # The same, one `name=token` a line.
    cors_origins: Words = ()  # Origins whose pages may call the service from a browser.
    log_requests: bool = False  # A line for every request, not only for those that were refused.
    load_timeout_s: Seconds = 60.0  # A new bundle whose models take longer to load and warm up is refused.
    drain_s: Seconds = 25.0  # A worker that is told to stop ends after so long, answered or not what is in flight.
    server_pid: Suppress[Count | None] = None  # Set by the service itself: the first process of the server,
    server_folder: Suppress[Path | None] = None  # and the folder through which its workers tell each other.

    def __post_init__(self) -> None:
        """Refuse bounds of the dial between which there is no threshold."""
        if not self.lowest_threshold <= self.highest_threshold:
            raise ConfigError(
                f"{PREFIX}LOWEST_THRESHOLD and {PREFIX}HIGHEST_THRESHOLD: expected the lowest at or below the highest, "
                f"found {self.lowest_threshold:g} and {self.highest_threshold:g} nats"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; a `ConfigError` names the variable that cannot be."""
        names = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        given = {names[name]: text for name, text in environment.items() if name in names and text}
        try:
            settings: Settings = TypeAdapter(cls).validate_python(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            raise ConfigError(f"{name} ({PREFIX}{name.upper()}): {first['msg']}, found {given[name]!r}") from None
        return settings

    def to_environment(self) -> dict[str, str]:
        """Return the variables of everything that is not at its default."""
        return {
            PREFIX + field.name.upper(): _text(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
