"""Merkle roots (RFC 6962's tree): one hash for an ordered list, with leaves and nodes kept apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def merkle_root(leaves: Sequence[bytes]) -> str:
    """SHA-256 root in hex; the root of an empty list is the hash of nothing, as in RFC 6962."""
    if not leaves:
        return hashlib.sha256(b"").hexdigest()
    level = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        # An odd last node moves up unchanged, which gives RFC 6962's left-balanced tree.
        paired = [
            hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)
        ]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0].hex()
