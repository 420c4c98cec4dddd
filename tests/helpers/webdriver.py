"""A headless Chromium by way of chromedriver's own HTTP interface: no library needed."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


def find_browser():
    """Paths of a browser and its driver, or None."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One session; use it as a context manager."""

    def __init__(self):
        browser, driver = find_browser()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory(prefix="chromium-")
        self.driver = subprocess.Popen(
            [driver, f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        options = {"binary": browser, "args": [*FLAGS, f"--user-data-dir={self.folder.name}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        self.session = ""
        self._wait()
        self.session = self._call("POST", "session", {"capabilities": {"alwaysMatch": capabilities}})[
            "sessionId"
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", f"session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            self.folder.cleanup()

    def _wait(self):
        for _ in range(100):
            try:
                self._call("GET", "status")
            except OSError:
                time.sleep(0.1)
            else:
                return

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error

    def _post(self, path, **body):
        return self._call("POST", f"session/{self.session}/{path}", body)

    def look(self, *, width, height=900, scheme="light"):
        """Set the size of the window and the reader's preference."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _cdp(self, name, **params):
        return self._post("goog/cdp/execute", cmd=name, params=params)

    def open(self, path):
        """Open a file; return the messages of the console and the addresses that were asked for."""
        self.console(), self.requests()
        address = Path(path).absolute().as_uri()
        self._post("url", url=address)
        return self.console(), [url for url in self.requests() if url != address]

    def console(self):
        return [entry["message"] for entry in self._post("se/log", type="browser")]

    def requests(self):
        found = []
        for entry in self._post("se/log", type="performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                found.append(event["params"]["request"]["url"])
        return found

    def run(self, script):
        """What a function body in JavaScript returns."""
        return self._post("execute/sync", script=script, args=[])

    def screenshot(self, path, *, whole=False):
        """Write a PNG of the window, or of the whole page."""
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))
