"""The packages that only some commands need."""

INSTALL = "pip install -r training/requirements-extra.txt"
