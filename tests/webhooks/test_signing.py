"""Signatures: the standard's own example, and its own library as the judge."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from watcher.webhooks.signing import key_of, signatures

keys_ = st.binary(min_size=24, max_size=64)


def test_the_example_of_the_specification():
    """https://github.com/standard-webhooks/standard-webhooks, "Signature scheme": id, timestamp, body and what they come to."""
    signed = signatures(
        [key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(
    keys_,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.integers(10**9, 10**10),
    st.text(st.characters(codec="utf-8")),
)
def test_the_library_of_the_standard_signs_the_same(key, message_id, timestamp, body):
    theirs = Webhook(f"whsec_{base64.b64encode(key).decode()}")
    right = theirs.sign(message_id, datetime.fromtimestamp(timestamp, UTC), body)
    assert signatures([key], message_id, timestamp, body.encode()) == right


@given(st.lists(keys_, min_size=1, max_size=4))
def test_each_secret_signs_while_one_is_rotated(keys):
    each = [signatures([key], "id", 1, b"body") for key in keys]
    assert signatures(keys, "id", 1, b"body") == " ".join(each)


@given(keys_)
def test_a_secret_stands_for_its_key(key):
    assert key_of(f"whsec_{base64.b64encode(key).decode()}") == key


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "begin with whsec_"),
        (base64.b64encode(bytes(32)).decode(), "begin with whsec_"),
        ("whsec_", "stands for 0 bytes"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "stands for 23 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "stands for 65 bytes"),
        ("whsec_" + base64.b64encode(bytes(32)).decode().rstrip("="), "no base64"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xff" * 33).decode(), "no base64"),
        ("whsec_ü" + "A" * 40, "no base64"),
    ],
)
def test_what_is_no_secret_is_refused_with_what_to_do(secret, says):
    with pytest.raises(ValueError, match=says):
        key_of(secret)
