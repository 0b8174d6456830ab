"""The bridge: a worker that serves AWS Lambda's Runtime API to an executable, and its Extensions and Telemetry APIs.

    front  <-- frames (docs/decisions/0021) -->  worker.py  <-- HTTP on loopback -->  bootstrap, extensions

| Module | What it keeps |
| --- | --- |
| ``settings`` | what the front and the operator say through the environment |
| ``worker`` | the process: its loop, its order of start and end, what goes wrong |
| ``server`` | HTTP on loopback: one request a connection at a time, bodies in pieces |
| ``runtime_api`` | ``/2018-06-01/runtime``: invocations out, responses in |
| ``events`` | an INVOKE frame as the runtime's event |
| ``responses`` | a response as frames, buffered or streamed |
| ``extensions`` | ``/2020-01-01/extension``: who is registered, who waits, INVOKE and SHUTDOWN |
| ``telemetry`` | ``/2022-07-01/telemetry``: bounded batches to who subscribed |
| ``report`` | platform events: what begins and ends, and what it cost |
| ``processes`` | the executables, what they print and how they end |

It is single-threaded, runs no user code in its own process, and imports little, since a cold start waits for it.
"""
