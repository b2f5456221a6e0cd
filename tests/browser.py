"""A headless Chromium that tests drive by its own protocol, through a pipe: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
    "--autoplay-policy=no-user-gesture-required",
    # A mouse, which a machine without a screen has not.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)
_PATIENCE_S = 60.0
AXE = Path(os.environ.get("STILLREEL_AXE", Path(__file__).parent / "node_modules/axe-core/axe.min.js"))
NO_AXE = "no axe-core: npm install --prefix tests axe-core"
# The browser reads what it is told at 3, and answers at 4.
_PLACE = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in enumerate(ends, 3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page."""

    def __init__(self, to: int, told: int) -> None:
        self._to, self._told, self._buffer, self._number = to, told, b"", 0
        self.complaints: list[str] = []  # of the page: exceptions, and what it was not let do
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = ""
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._send("Page.navigate", {"url": url})
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        found = self._send(
            "Runtime.evaluate",
            {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True},
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str, patience_s: float = 20.0) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + patience_s
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < end, f"never: {condition}; {self.complaints}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key, as a person presses it; printable ones type."""
        text = {"Enter": "\r", "Space": " "}.get(key, key if len(key) == 1 else "")
        name = " " if key == "Space" else key
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        about = {"key": name, "windowsVirtualKeyCode": code.get(key, ord(name) if len(name) == 1 else 0)}
        self._send("Input.dispatchKeyEvent", {"type": "keyDown", **about, **({"text": text} if text else {})})
        self._send("Input.dispatchKeyEvent", {"type": "keyUp", **about})

    def type(self, text: str) -> None:
        self._send("Input.insertText", {"text": text})

    def size(self, width: int, height: int) -> None:
        about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", about)

    def dark(self, on: bool) -> None:
        self._prefer("color-scheme", "dark" if on else "light")

    def still(self, on: bool) -> None:
        """Whether the person wants nothing to move."""
        self._prefer("reduced-motion", "reduce" if on else "no-preference")

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page, which must let it run."""
        self.run(AXE.read_text() + "; 0")
        found: list[str] = self.run(
            "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.map("
            "(one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(' ')}`))"
        )
        return found

    def _prefer(self, name: str, value: str) -> None:
        self._send("Emulation.setEmulatedMedia", {"features": [{"name": f"prefers-{name}", "value": value}]})

    def shoot(self, file: Path) -> None:
        """A picture of the window."""
        file.write_bytes(base64.b64decode(self._send("Page.captureScreenshot")["data"]))

    def give_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        self._send("DOM.enable")
        root = self._send("DOM.getDocument")["root"]["nodeId"]
        node = self._send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self._send("DOM.setFileInputFiles", {"files": [str(file)], "nodeId": node})

    def _send(self, method: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": values or {}}
        if getattr(self, "_session", ""):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                found: dict[str, Any] = answer["result"]
                return found
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(
                    str(answer["params"]["exceptionDetails"].get("exception", {}).get("description"))
                )
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["source"] == "security":
                self.complaints.append(answer["params"]["entry"]["text"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._told], [], [], _PATIENCE_S)
            assert ready, "the browser says nothing"
            data = os.read(self._told, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found


def without_policy(page: str) -> str:
    """A page into which a test puts scripts of its own."""
    return re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page, count=1)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in this folder."""
    assert CHROMIUM is not None
    to_read, to = os.pipe()
    told, told_write = os.pipe()

    process = subprocess.Popen(
        [sys.executable, "-c", _PLACE, str(to_read), str(told_write), CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(to_read, told_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(told_write)
    try:
        yield Browser(to, told)
    finally:
        process.terminate()
        process.wait(20)
        os.close(to)
        os.close(told)
