"""`python -m wisp_cluster.forward PORT ADDRESS:PORT`: a port of this machine's loopback that reaches the ingress.

The node has a network of its own; people and their curl are outside. A process, not a firewall rule: nothing of it is left when it is killed.
"""

import asyncio
import contextlib
import sys

CHUNK = 65536


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until the end, then say the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(port: int, host: str, target_port: int) -> None:
    """Forward connections for ever."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
        for side in (writer, there_writer):
            side.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    address, _, number = sys.argv[2].rpartition(":")
    asyncio.run(serve(int(sys.argv[1]), address, int(number)))
