"""Two colour maps as small tables: viridis for "how much", PuOr for "more or less". Both readable when colour-blind.

Sources: viridis by Nathaniel Smith and Stefan van der Walt (matplotlib, CC0), 33 evenly spaced colours of it;
PuOr from ColorBrewer 2.0 by Cynthia Brewer (Apache 2.0), eleven classes, turned so that orange is positive.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serving.client.results import Bytes

_VIRIDIS = """
    440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e 26828e 23898e
    21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b
    fde725
    """
_PUOR = "2d004b 542788 8073ac b2abd2 d8daeb f7f7f7 fee0b6 fdb863 e08214 b35806 7f3b08"


def sequential(values: npt.ArrayLike) -> Bytes:
    """Colours of viridis, dark blue at 0 to yellow at 1: values (...) -> uint8 RGB (..., 3). Clipped."""
    return _look_up(_VIRIDIS_TABLE, np.asarray(values, dtype=np.float64))


def diverging(values: npt.ArrayLike) -> Bytes:
    """Colours of PuOr, purple at -1, white at 0, orange at 1: values (...) -> uint8 RGB (..., 3). Clipped."""
    return _look_up(_PUOR_TABLE, (np.asarray(values, dtype=np.float64) + 1) / 2)


def _table(text: str) -> npt.NDArray[np.float64]:
    return np.array([list(bytes.fromhex(colour)) for colour in text.split()], dtype=np.float64)


def _look_up(table: npt.NDArray[np.float64], positions: npt.NDArray[np.float64]) -> Bytes:
    stops = np.linspace(0, 1, len(table))
    channels = [np.interp(positions, stops, table[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


_VIRIDIS_TABLE = _table(_VIRIDIS)
_PUOR_TABLE = _table(_PUOR)
