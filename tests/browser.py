"""A headless Chromium, driven over its DevTools protocol: just what the tests of pages need."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PATIENCE = 60.0  # seconds for a browser to start, or a page to load

REASON = None if shutil.which("chromium") else "there is no chromium (apt-get install chromium)"


class Browser:
    """One tab. Every method waits until it is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket, self._number = loop, socket, 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), PATIENCE))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self._loaded()

    def reload(self) -> None:
        self.run("window.before = true")
        self.call("Page.reload")
        self._loaded()

    def _loaded(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.run("document.readyState === 'complete' && !window.before && location.href !== 'about:blank'"):
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression. An exception in it fails the test."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, id: str) -> None:
        """A real mouse click in the middle of an element, which must be seen there."""
        self.run(f"document.getElementById('{id}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y, hit = self.run(
            f"(() => {{ const e = document.getElementById('{id}'), r = e.getBoundingClientRect();"
            "const x = r.x + r.width / 2, y = r.y + r.height / 2;"
            "return [x, y, e.contains(document.elementFromPoint(x, y))]; })()"
        )
        assert hit, f"{id} is hidden or covered"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def downloads(self, directory: Path) -> None:
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(directory))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile. Skips where there is none, unless REQUIRE_CHROMIUM says that it must."""
    if REASON and os.environ.get("REQUIRE_CHROMIUM"):
        pytest.fail(f"REQUIRE_CHROMIUM is set, but {REASON}")
    if REASON:
        pytest.skip(REASON)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command = ["chromium", *options, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    session = None
    try:
        session = aiohttp.ClientSession(loop=loop)
        socket = loop.run_until_complete(_connect(session, profile / "DevToolsActivePort"))
        yield Browser(loop, socket)
    finally:
        if session:
            loop.run_until_complete(session.close())
        loop.close()
        process.kill()
        process.wait()


async def _connect(session: aiohttp.ClientSession, port_file: Path) -> aiohttp.ClientWebSocketResponse:
    deadline = time.monotonic() + PATIENCE
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        assert time.monotonic() < deadline, "chromium does not start"
        await asyncio.sleep(0.1)
    port = port_file.read_text().split()[0]
    while True:  # the first page may come after the port
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = json.loads(await answer.text())
        pages = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
        if pages:
            return await session.ws_connect(pages[0], max_msg_size=0)
        assert time.monotonic() < deadline, "chromium opens no page"
        await asyncio.sleep(0.1)
