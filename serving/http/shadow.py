"""A challenger in the shadow of the bundle that answers: it is asked about a share of live songs, and only counted.

A thread of its own asks it, one request after the other, off the path of every request. Nothing that it says is
returned, and nothing that happens to it is felt: songs that find it busy are passed over, and errors are counted.
"""

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Sequence

from segue.data.song import Songs, Units
from segue.errors import BundleError
from segue.serving.bundle.load import load_bundle
from segue.serving.cascade import Cascade, open_cascade
from segue.serving.http.monitoring import Monitoring
from segue.serving.http.settings import Settings

WAITING_REQUESTS = 8  # More find the challenger busy; each holds the songs of one request in memory.

logger = logging.getLogger(__name__)


class Shadow:
    """The challenger of one worker."""

    def __init__(self, cascade: Cascade, classes: Sequence[str], share: float, monitoring: Monitoring) -> None:
        """Begin to wait for songs.

        Args:
            cascade: the challenger.
            classes: its classes.
            share: of the requests that it is asked about, 0 to 1.
            monitoring: where agreement is counted.
        """
        self._cascade = cascade
        self._classes = classes
        self._share = share
        self._monitoring = monitoring
        self._random = random.Random(0)
        self._waiting: queue.Queue[tuple[Songs, Sequence[str]]] = queue.Queue(WAITING_REQUESTS)
        threading.Thread(target=self._work, name="segue-shadow", daemon=True).start()

    @classmethod
    def open(cls, settings: Settings, monitoring: Monitoring, units: Units) -> "Shadow | None":
        """Load the challenger that the settings name, if they name one, for songs in `units`.

        Raises:
            BundleError: it cannot be loaded, or is for songs in other units.
        """
        if settings.shadow is None:
            return None
        bundle = load_bundle(settings.shadow)
        if bundle.manifest.units != units:
            raise BundleError(
                f"{settings.shadow}: expected a bundle for {units} songs, as those that are served; found one for "
                f"{bundle.manifest.units} songs"
            )
        cascade = open_cascade(bundle, windows=settings.windows, provider=settings.provider, threads=1)
        return cls(cascade, bundle.manifest.classes, settings.shadow_share, monitoring)

    def offer(self, songs: Songs, genres: Sequence[str]) -> None:
        """Let the challenger see some songs, maybe; `genres` (n_songs,) are the answers they were given."""
        if self._random.random() >= self._share:
            return
        try:
            self._waiting.put_nowait((songs, genres))
        except queue.Full:
            self._monitoring.shadowed({("passed over", genre): count for genre, count in Counter(genres).items()})

    def _work(self) -> None:
        while True:
            songs, genres = self._waiting.get()
            try:
                said = [self._classes[choice] for choice in self._cascade.answer(songs).choice]
                pairs = zip(genres, said, strict=True)
                results = Counter(("agrees" if ours == its else "differs", ours) for ours, its in pairs)
            except Exception:
                logger.exception("the challenger in the shadow failed")
                results = Counter(("failed", genre) for genre in genres)
            self._monitoring.shadowed(results)
