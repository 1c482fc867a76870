"""Figures and lists as they are read."""

from __future__ import annotations

from collections.abc import Sequence

NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share, 0..1, in percent.

    Example:
        >>> percent(0.9412).split()
        ['94.1', '%']
    """
    return "–" if value is None else f"{100 * value:.{digits}f}{NO_BREAK}%"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them.

    Example:
        >>> listed(["noise", "blur", "shear"])
        'noise, blur and shear'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
