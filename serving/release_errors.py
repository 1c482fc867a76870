"""What can go wrong when versions are brought into service, as one tree.

ReleaseError
├── ConfigError       the model config file cannot be read as one
├── LogError          a line of the log of promotions cannot be read
├── NoVersion         there is no such version on disk
├── NoManifest        nothing says what a version should be
└── PromotionError    a version does not go into service
"""

from __future__ import annotations


class ReleaseError(Exception):
    """Anything that keeps a version from being promoted, rolled back, verified or pruned."""


class ConfigError(ReleaseError):
    """The model config file cannot be read as one; the text names the file and the place."""


class LogError(ReleaseError):
    """A line of the log cannot be read; the text says which."""


class NoVersion(ReleaseError):  # noqa: N818 - as NotFound of the client
    """There is no such version on disk; the text lists those that are."""


class NoManifest(ReleaseError):  # noqa: N818 - as NotFound of the client
    """Nothing says what a version should be; the text says why."""


class PromotionError(ReleaseError):
    """A version that does not go into service; the text says why, and what is in service stays."""
