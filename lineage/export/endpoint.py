"""Events to an OpenLineage endpoint over HTTP, one by one and in order."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from infra.redaction import redacted
from lineage.export.selection import ExportError

TIMEOUT_S = 10.0
PAUSES_S = (0.5, 1.0, 2.0)  # before the second, third and fourth try
_TRY_AGAIN = (429, 500, 502, 503, 504)


def send(
    events: Sequence[dict[str, Any]],
    *,
    to: str,
    api_key: str | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """POST each event as JSON. Raises ExportError at the first that is not taken, and says how many were."""
    _check(to)
    opener = urllib.request.build_opener(_NoRedirect)
    for sent, event in enumerate(events):
        request = urllib.request.Request(to, data=json.dumps(event).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        if api_key:
            request.add_unredirected_header("Authorization", f"Bearer {api_key}")
        refusal = ""
        for pause in (*pauses_s, None):
            refusal, again = _post(opener, request)
            if not refusal or not again or pause is None:
                break
            wait(pause)
        if refusal:
            if api_key:
                refusal = refusal.replace(api_key, "(redacted)")
            raise ExportError(
                f"{redacted(to)} did not take event {sent + 1} of {len(events)} ({event['eventType']} of "
                f"{event['job']['name']}): {refusal}; {sent} were sent, and may be sent again: their ids stay"
            )


def _post(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> tuple[str, bool]:
    """What was wrong, or nothing; and whether another try may help."""
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            answer.read(1)
        return "", False
    except urllib.error.HTTPError as error:
        with error:
            said = " ".join(error.read(300).decode(errors="replace").split())
        said = f"HTTP {error.code} {error.reason}" + (f", '{redacted(said)}'" if said else "")
        return said, error.code in _TRY_AGAIN
    except urllib.error.URLError as error:
        return f"it cannot be reached ({error.reason})", True
    except (OSError, HTTPException) as error:
        return f"it broke off ({error or type(error).__name__})", True


def _check(to: str) -> None:
    parts = urlsplit(to)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ExportError(
            f"'{redacted(to)}' is no endpoint, expected one like http://host:5000/api/v1/lineage"
        )
    if "@" in parts.netloc:
        raise ExportError("--url holds a password; take it out, and put a key into OPENLINEAGE_API_KEY")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, which stores nothing and looks like success."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect is the answer."""
        return
