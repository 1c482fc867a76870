"""What is asked for and not there, and what comes nearest to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExplanationError(ValueError):
    """A method, layer, class or version that does not exist, or images of another shape."""


def nearest(name: str, known: Iterable[str], count: int = 1) -> str:
    """A hint for a message, such as " (did you mean 'grad_cam'?)"; empty where nothing is near.

    Args:
        name: what came.
        known: what there is.
        count: at most so many are named.
    """
    spellings = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), spellings, n=count, cutoff=0.4)
    return f" (did you mean {' or '.join(repr(spellings[one]) for one in near)}?)" if near else ""
