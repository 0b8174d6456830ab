# ruff: noqa: INP001 - a script beside the package
"""The image's worker: as start.py beside it, with nothing on the import path but the standard library and ``lib``."""

import sys

sys.path.append(__file__.rpartition("/")[0] + "/lib")

from wisp_runtime.bridge.worker import main

main()
