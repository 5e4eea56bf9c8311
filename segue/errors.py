"""Every error a user can cause, from the songs up to the service.

The command line prints the message without a traceback and exits with 1; the service maps each class to one status.
A message names the thing, what was expected, what was found, and what to do.
"""


class SegueError(Exception):
    """Anything a user can cause and mend."""


class SongError(SegueError):
    """A song, or a table of songs, that breaks the contract of `segue.data.song`."""


class AudioError(SongError):
    """A recording that cannot be decoded or analysed."""


class LabelError(SegueError):
    """Labels that are missing, malformed, or outside the expected classes."""


class ConfigError(SegueError):
    """A setting that cannot work: an unknown key, a value out of range, a setting that contradicts another."""


class RunError(SegueError):
    """A training run that is missing, incomplete, or was made from other songs."""


class BundleError(SegueError):
    """A bundle that is missing, corrupt, of another format version, or not what its manifest says."""


class ReleaseError(SegueError):
    """A release store that is missing, damaged or locked by another, or a release that is not in it."""


class ServiceError(SegueError):
    """A server that refused a request, or that cannot be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """Say what happened; `status` is the HTTP status, None where no answer came."""
        super().__init__(message)
        self.status = status


class MissingDependencyError(SegueError):
    """A library of an optional extra is not installed."""
