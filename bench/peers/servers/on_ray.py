"""Ray Serve: student and teacher as deployments of their own with batches, composed by a third."""

import os
import time
from typing import Any

import numpy as np
import orjson
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from segue.bench.peers.servers.plain_cascade import Answers, Model, PlainCascade, songs_from_bytes

Songs = NDArray[np.float32]
Probs = NDArray[np.float64]


def joined(model: Model, requests: list[Songs]) -> list[Probs]:
    """Ask a model about the songs of several requests at a time."""
    return np.split(model.probs(np.concatenate(requests)), np.cumsum([len(songs) for songs in requests])[:-1])


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Student:
    """Answers about every song."""

    def __init__(self) -> None:
        """Load it."""
        self.model = PlainCascade().student

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def __call__(self, songs: list[Songs]) -> list[Probs]:
        """Return probabilities."""
        return joined(self.model, songs)


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Teacher:
    """Answers about hard songs."""

    def __init__(self) -> None:
        """Load it."""
        self.model = PlainCascade().teacher

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def __call__(self, songs: list[Songs]) -> list[Probs]:
        """Return probabilities."""
        return joined(self.model, songs)


@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=64)
class Cascade:
    """Takes requests, asks the student, and the teacher where the student is not sure."""

    def __init__(self, student: DeploymentHandle[Any], teacher: DeploymentHandle[Any]) -> None:
        """Remember whom to ask."""
        self.student, self.teacher = student, teacher
        self.plain = PlainCascade()

    async def __call__(self, request: Request) -> Response:
        """Answer about the songs of a JSON or a raw body."""
        body = await request.body()
        if request.headers["content-type"] == "application/json":
            songs = np.array(orjson.loads(body)["songs"], np.float32)
        else:
            songs = songs_from_bytes(body)
        probs = np.array(await self.student.remote(songs))
        hard = self.plain.is_hard(probs)
        if hard.any():
            probs[hard] = await self.teacher.remote(songs[hard])
        answers = Answers(probs, -np.log(probs.max(axis=1)), hard)
        return Response(orjson.dumps(self.plain.to_json(answers)), media_type="application/json")


def main() -> None:
    """Serve until told to stop."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, configure_logging=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])},
        logging_config={"enable_access_log": False},
    )
    student, teacher = Student.bind(), Teacher.bind()  # type: ignore[attr-defined]
    serve.run(Cascade.bind(student, teacher), route_prefix="/classify")  # type: ignore[attr-defined]
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
