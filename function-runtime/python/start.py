# ruff: noqa: INP001 - a script beside the package
"""The image's entry point: with ``python3 -I -S`` nothing is on the import path but the standard library and ``lib``.

``-I`` keeps the environment and the working directory out of our own start, ``-S`` saves 3 ms of ``site``; what users
expect of both (PYTHONPATH, Debian's packages, ``exit()``) ``wisp_runtime.loading`` puts back before it imports their code.
"""

import sys

sys.path.append(__file__.rpartition("/")[0] + "/lib")

from wisp_runtime.__main__ import main

main()
