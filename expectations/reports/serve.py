"""The site over HTTP, for whoever sits at another machine: on 127.0.0.1 alone, that site and nothing else."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from infra.settings import SettingsError

PORT = 8642
_HERE = ("127.0.0.1", "localhost")


def server(site: Path, port: int = PORT) -> ThreadingHTTPServer:
    """A server of the site, not serving yet; port 0 takes a free one. SettingsError for a taken port."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Pages, directory=str(site)))
    except OSError as error:
        raise SettingsError(
            f"port {port} cannot be served ({error.strerror}); choose another with --port"
        ) from error


class _Pages(SimpleHTTPRequestHandler):
    """GET and HEAD of the site's files. No listings, no links out of it, no other host's name."""

    server_version, sys_version = "stemma", ""

    def send_head(self) -> Any:
        """Refuse what is not meant for this site; else as the base class does."""
        asked = (self.headers.get("Host") or "").rpartition(":")[0] or (self.headers.get("Host") or "")
        if asked not in _HERE:  # another site's page, whose name was pointed here
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        place = os.path.realpath(self.translate_path(self.path))
        root = os.path.realpath(self.directory)
        if place != root and not place.startswith(root + os.sep):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """A folder without an index is not there."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """What is said of every answer."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the screen is the user's."""
