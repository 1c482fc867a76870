"""The version that ships."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "serving/models/fashion_mnist/2"
VERSION = int(SHIPPED.name)
