"""``python -m wisp_runtime.bridge``, as the front starts it."""

from wisp_runtime.bridge.worker import main

main()
