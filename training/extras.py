"""The packages that only some commands need."""

import sys

INSTALL = f"{sys.executable} -m pip install -r training/requirements-extra.txt"
