from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.pii import KINDS, detect, found_in, redacted

# Written in pieces, so that nobody's scanner takes the tests for a leak.
RANDOM = "q7Zt2Lx9Vb4Nc8Mw1Rk6Ys3Hd5Jf0GpT"
BASE64 = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
PRIVATE_KEY = f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{BASE64}\n{BASE64}\n-----END RSA {'PRIVATE'} KEY-----"
KEY = b"a lake's own key"

PLANTED = [
    ("email", "write to Ann.Lee+news@mail.example.co.uk, please", "Ann.Lee+news@mail.example.co.uk"),
    ("email", "mailto:jürgen@müller.de", "jürgen@müller.de"),
    ("email", '{"user":"bob_1@x.io"}', "bob_1@x.io"),
    ("email", "联系ann@example.com谢谢", "ann@example.com"),
    ("phone", "call +49 30 12345678 now", "+49 30 12345678"),
    ("phone", "+14155550132", "+14155550132"),
    ("phone", "0044 20 7946 0958", "0044 20 7946 0958"),
    ("phone", "at (415) 555-0132.", "(415) 555-0132"),
    ("phone", "415-555-0132 or 415.555.0199", "415-555-0132"),
    ("phone", "1-800-555-0199", "1-800-555-0199"),
    ("phone", "ring 020 7946 0958", "020 7946 0958"),
    ("phone", "au 01 42 68 53 00,", "01 42 68 53 00"),
    ("phone", "Tel.: 555 1234567", "555 1234567"),
    ("phone", '"phone": "4155550132"', "4155550132"),
    ("card", "4111 1111 1111 1111 exp 12/29", "4111 1111 1111 1111"),
    ("card", "5555555555554444", "5555555555554444"),
    ("card", "amex 3782-822463-10005", "3782-822463-10005"),
    ("aws_key", f"id {'AKIA'}IOSFODNN7EXAMPLE", f"{'AKIA'}IOSFODNN7EXAMPLE"),
    ("github_token", f"{'ghp'}_{RANDOM}Aa1b", f"{'ghp'}_{RANDOM}Aa1b"),
    ("api_key", f"OPENAI={'sk'}-proj-{RANDOM}", f"{'sk'}-proj-{RANDOM}"),
    ("api_key", f"'{'sk'}-ant-api03-{RANDOM}'", f"{'sk'}-ant-api03-{RANDOM}"),
    ("google_key", f"key={'AIza'}{RANDOM}abc", f"{'AIza'}{RANDOM}abc"),
    ("slack_token", f"{'xoxb'}-123456789012-{RANDOM}", f"{'xoxb'}-123456789012-{RANDOM}"),
    ("jwt", f"{'eyJ'}hbGciOiJIUzI1.{'eyJ'}zdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", None),
    ("private_key", f"here:\n{PRIVATE_KEY}\nbye", PRIVATE_KEY),
    ("secret", f'api_key="{RANDOM}"', RANDOM),
    ("secret", f"AWS_SECRET_ACCESS_KEY = {RANDOM}/+a8", f"{RANDOM}/+a8"),
    ("secret", f"Authorization: Bearer {RANDOM}", RANDOM),
    ("secret", f'"clientSecret": "{RANDOM}"', RANDOM),
]

# The same inside JSON text, as columns such as `extra` hold it.
PLANTED += [(kind, json.dumps(f"a\n{text}\n", ensure_ascii=False), None) for kind, text, _ in PLANTED]

INNOCENT = [
    r"pass\n\n\n@pytest.mark.parametrize",
    "version 1.22.333.4444 and 10.0.19045.3803",
    "at 2024-05-06 07:08:09.123456 or 2024-05-06T07:08:09+00:00 or 20240506070809",
    "1714979289123 ms, 1714979289 s, 1714979289123456789 ns",
    "550e8400-e29b-41d4-a716-446655440000",
    "sha256:4111111111111111e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c",
    "d41d8cd98f00b204e9800998ecf8427e",
    "order 112-3456789-1234567, invoice 2024-000123456, ISBN 978-3-16-148410-0",
    "192.168.100.200 and 10.20.30.40:8080 and 2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "pi = 3.14159265358979, 0.4111111111111111, 1,234,567,890 and $4155550132",
    "for (i = 2000000000; i < 4294967295; i += 1000000007) {}",
    "x = a +12345678 - 415-2",
    "1 2 3 4 5 6 7 8 9 10 11 12 13",
    "4111 1111 1111 1112 fails the check",
    "0000 0000 0000 0000",
    "@app.route('/x') def f(): pass  # @ann, lodash@4.17.21, icon@2x.png, a@b",
    "git clone git@github.com:org/repo.git && psql postgres://user:pw@db.internal.com/x",
    "git@github.com:org/repo",
    "sk-learn-based-approach-to-clustering-documents, risk-adjusted-return-on-capital",
    "max_tokens=completion.usage.completion_tokens",
    "api_key = os.environ['OPENAI_API_KEY']; token = self.tokenizer.next_token",
    "password: correcthorsebatterystaple",
    "secret_name: projects/my-project/secrets/latest",
    "API_KEY=your-api-key-goes-here",
    f"-----BEGIN {'PRIVATE'} KEY----- is how it begins",
    "the token generation for transformers models",
    "2024-05-06 1234 5678, rows 555 123 4567",
    "tel aviv 1234567 and phone model 12345",
    "commit 4155550, build 20240506.1, CVE-2024-123456",
]


@pytest.mark.parametrize(("kind", "text", "value"), PLANTED)
def test_what_is_planted_is_found_and_redacted(kind: str, text: str, value: str | None):
    assert kind in found_in(text)
    said, counts = redacted(text, key=KEY)
    assert counts == found_in(text)
    assert f"<{kind}:" in said
    if value is not None:
        assert value not in said
        assert said.startswith(text.partition(value)[0] + "<")


@pytest.mark.parametrize("text", INNOCENT)
def test_what_looks_like_it_is_left_alone(text: str):
    assert found_in(text) == {}
    assert redacted(text, key=KEY) == (text, {})


def test_every_kind_is_planted():
    assert {kind for kind, _, _ in PLANTED} == set(KINDS)


def test_the_same_value_has_one_pseudonym_however_it_is_written():
    def said(text: str, key: bytes = KEY) -> str:
        return redacted(text, key=key)[0]

    assert said("Ann@Example.com") == said("ann@example.com")
    assert said("4111 1111 1111 1111") == said("4111111111111111")
    assert said("+49 30 12345678") == said("+49 (30) 123-45678")
    assert said("ann@example.com") != said("bob@example.com")
    assert said("ann@example.com") != said("ann@example.com", key=b"another lake's")


@given(st.lists(st.sampled_from([*(text for _, text, _ in PLANTED), *INNOCENT]), max_size=4))
def test_a_redacted_text_holds_nothing_more(texts: list[str]):
    said, _ = redacted("\n".join(texts), key=KEY)
    assert found_in(said) == {}
    assert redacted(said, key=KEY) == (said, {})


TEXTS = st.text() | st.text("0123456789 +-().@:/=key", max_size=60)


@given(TEXTS | st.tuples(TEXTS, st.sampled_from([text for _, text, _ in PLANTED]), TEXTS).map(" ".join))
def test_a_column_finds_what_a_text_finds(text: str):
    if text.encode("utf-8", "replace").decode() == text:
        assert detect([pa.array([text, None])]) == [found_in(text) or None, None]


def test_finds_of_all_columns_of_a_row_are_counted_together():
    first = pa.chunked_array([["a@b.de", None], ["nothing"]])
    second = pa.array(["c@d.de and e@f.de", "", "+14155550132"], pa.large_string())
    assert detect([first, second]) == [{"email": 3}, None, {"phone": 1}]
    assert detect([]) == []


def test_a_long_text_without_structure_is_read_in_a_moment():
    for piece in (
        "0",
        "a",
        "1 ",
        "a.",
        "@",
        "key ",
        "token=",
        "-----BEGIN PRIVATE KEY-----",
        "sk-",
        "+1 ",
        "a@b.de ",
    ):
        found_in(piece * 20_000)
        found_in(piece * 20_000 + "!x")
    found_in(("+1" + "2" * 70 + "x ") * 500)
