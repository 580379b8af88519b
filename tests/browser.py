"""A headless Chromium, told what to do over its DevTools protocol: open a page, evaluate, emulate, take a picture."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


class Page:
    """One tab. `requests` are the addresses it asked for, `said` what its console was told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.requests: list[str] = []
        self.said: list[str] = []

    async def call(self, method: str, until: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method; with `until`, wait for that event, too."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer: dict[str, Any] | None = None
        seen = not until
        while answer is None or not seen:
            told = await asyncio.wait_for(self._socket.receive_json(), 60)
            seen = seen or told.get("method") == until
            if told.get("id") == self._number:
                assert "error" not in told, told
                answer = told["result"]
            elif told.get("method") == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(str(told["params"]))
        return answer

    async def open(self, path: Path) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", until="Page.loadEventFired", url=path.as_uri())

    async def value(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def emulate(self, *, width: int = 1280, height: int = 900, media: str = "", scheme: str = "light") -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", media=media, features=features)

    async def picture(self, path: Path) -> None:
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    async def pdf(self) -> bytes:
        return base64.b64decode((await self.call("Page.printToPDF"))["data"])


@contextlib.asynccontextmanager
async def browsing(binary: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own; it ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            binary, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank", stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            while not (
                found := re.search(rb"DevTools listening on ws://([^/]+)/", line := await process.stderr.readline())
            ):
                assert line, "the browser ended before it was ready"
            reading = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{found[1].decode()}/json") as response:
                    tabs = await response.json()
                address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    yield Page(socket)
            reading.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
