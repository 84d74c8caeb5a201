"""What loads at the first request of httpcore is loaded before, where calls wait for the same loop."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
import httpcore
import shaken_plugin.fetch

async def request():
    backend = httpcore.AsyncMockBackend([b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"])
    url = httpcore.URL("http://localhost/a.pem")
    connection = httpcore.AsyncHTTPConnection(url.origin, network_backend=backend)
    response = await connection.handle_async_request(httpcore.Request("GET", url, headers=[("Host", "localhost")]))
    assert await response.aread() == b"ok"
    await response.aclose()
    await connection.aclose()

async def main():
    if "warm" in sys.argv:
        await shaken_plugin.fetch.warm_up()
    before = set(sys.modules)
    await request()
    print(len(set(sys.modules) - before))

asyncio.run(main())
"""


def loaded(*arguments: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_the_first_download_loads_nothing_more() -> None:
    assert loaded("warm") == 0
    assert loaded() > 10  # or there would be nothing to load before
