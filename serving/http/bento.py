"""What a Bento of the service has to hold: a bundle, without which its workers would fail and start again for ever."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bentoml.exceptions import BentoMLException
from bentoml.images import Image

from segue.errors import BundleError
from segue.serving.bundle.load import load_bundle
from segue.serving.http.settings import Settings

SOURCES = "src"  # The folder of a Bento that holds the files of the checkout.
BUNDLE_VARIABLE = "SEGUE_BUNDLE"


class ImageWithBundle(Image):
    """The image of a Bento; BentoML freezes it once it has copied the files, and this looks at what was copied."""

    def freeze(self, bento_fs: Path, envs: list[Any], platform_: str | None = None) -> Any:
        """Return the image's description; a `BentoMLException`, which ends the build, if the bundle is not inside."""
        check_bundle_inside(bento_fs / SOURCES, envs)
        return super().freeze(bento_fs, envs, platform_)


def check_bundle_inside(sources: Path, envs: Sequence[Any]) -> None:
    """Refuse a Bento without its bundle: links among its files are copied as links, or not at all.

    Args:
        sources: the folder with the files of the Bento.
        envs: its variables; a bundle at an absolute path is not the Bento's, but mounted where it runs.

    Raises:
        BentoMLException: there is no bundle, or not all of it.
    """
    named = next((Path(env.value) for env in envs if env.name == BUNDLE_VARIABLE and env.value), Settings().bundle)
    if named.is_absolute():
        return
    advice = "`bentoml build` follows no links: copy the bundle's own folder there, then build again."
    try:
        load_bundle(sources / named)
    except BundleError as error:
        raise BentoMLException(f"the Bento would have no bundle at {named}: {error}. {advice}") from None
    links = sorted(file.name for file in (sources / named).iterdir() if file.is_symlink())
    if links:
        raise BentoMLException(f"{named}: expected files, found links: {', '.join(links)}. {advice}")
