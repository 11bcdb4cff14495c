"""A secret leaves in no quote: not whole, not cut, not escaped."""

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.addresses import AddressError, evm, felt, solana
from watcher.hiding import HIDDEN, RUN, WITHHELD, Redaction
from watcher.providers.answers import glimpse
from watcher.screen import one_line

SECRET = "canary-9f0c/3b+77aa=&41d2<e8>"
ESCAPES = {
    "plain": str,
    "json": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "unicode": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "repr": lambda text: "".join(f"\\x{ord(letter):02x}" for letter in text),
    "percent": lambda text: quote(text, safe=""),
    "every percent": lambda text: "".join(f"%{ord(letter):02x}" for letter in text),
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "html": html.escape,
    "entities": lambda text: "".join(f"&#x{ord(letter):x};" for letter in text),
    "html in json": lambda text: json.dumps(html.escape(text))[1:-1],
    "upper case": str.upper,
}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    monkeypatch.setattr(HIDDEN, "_secrets", [])
    monkeypatch.setattr(HIDDEN, "_runs", frozenset())
    HIDDEN.hide([SECRET])


def longest_part(text):
    """The longest part of the secret that stands in the text."""
    parts = (SECRET[i:k] for i in range(len(SECRET)) for k in range(i + 1, len(SECRET) + 1))
    return max((part for part in parts if part.lower() in text.lower()), key=len, default="")


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("before", [*range(0, 60, 7), 150, 155, 195, 400])
def test_a_quote_is_withheld_wherever_it_would_have_been_cut(escape, before):
    text = "x" * before + escape(SECRET) + "y" * 300
    for shown in (one_line(text), glimpse(text.encode())):
        assert WITHHELD in shown or len(longest_part(shown)) < 4


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_part_of_the_secret_is_withheld_and_less_is_not(escape):
    for start in range(len(SECRET) - RUN + 1):
        assert HIDDEN.shown(f"see {escape(SECRET[start : start + RUN])}.") == WITHHELD
    assert HIDDEN.shown(f"see {SECRET[:7]}.") == f"see {SECRET[:7]}."


@given(
    start=st.integers(0, len(SECRET)),
    length=st.integers(0, len(SECRET)),
    escape=st.sampled_from(list(ESCAPES.values())),
    before=st.text(max_size=200),
    after=st.text(max_size=200),
)
def test_no_eight_characters_of_a_secret_are_ever_shown(start, length, escape, before, after):
    text = before + escape(SECRET[start : start + length]) + after
    for shown in (one_line(text), one_line(text, 20), glimpse(text.encode("utf-8", "replace"))):
        assert len(longest_part(shown)) < RUN


@pytest.mark.parametrize("read", [evm, solana, felt])
def test_a_key_where_an_address_should_stand_is_not_told(read):
    for before in range(80):
        with pytest.raises(AddressError) as error:
            read("x" * before + SECRET + "y" * 80)
        assert len(longest_part(str(error.value))) < 4 or WITHHELD in str(error.value)


def test_a_key_that_came_later_is_withheld_too_and_a_short_one_is_blotted_out():
    hidden = Redaction(["canary-one"])
    hidden.hide(["canary-two", "short", ""])
    assert [hidden.shown(text) for text in ("x canary-o", "x nary-two", "a short one")] == [
        WITHHELD,
        WITHHELD,
        "a *** one",
    ]


def test_nothing_is_withheld_where_nothing_is_hidden():
    assert Redaction(()).shown("HTTP 404: \\u0041%41&amp;") == "HTTP 404: \\u0041%41&amp;"
