"""What is told to others holds no secret, however the password is made up, and is whole otherwise."""

from __future__ import annotations

import pytest

from infra.redaction import redacted, without_credentials


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://user:s3cret@host:5000/x", "http://host:5000/x"),
        ("http://user:s3@cret@host:5000/x", "http://host:5000/x"),
        ("postgresql://user:s3/cr@et@host/db", "postgresql://host/db"),
        ("s3://bucket/lake?X-Amz-Signature=s3cret#s3cret", "s3://bucket/lake"),
        ("s3://s3cret@bucket/a@b", "s3://bucket/a@b"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("/a folder/with@and?and#", "/a folder/with@and?and#"),
        ("", ""),
    ],
)
def test_a_uri_is_told_without_its_credentials(uri: str, told: str):
    assert without_credentials(uri) == told


def test_a_uri_within_a_sentence_is_told_without_its_credentials():
    said = "API request to http://user:s3@cret@host/x?token=s3cret failed, see http://host:80/help or me@home"
    assert (
        redacted(said)
        == "API request to http://host/x?token=(redacted) failed, see http://host:80/help or me@home"
    )
