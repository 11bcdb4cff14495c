"""A secret leaves in no quote: not whole, not cut, not escaped."""

import base64
import functools
import html
import json
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.ledger.store import Store
from watcher.model.addresses import AddressError, evm, felt, solana
from watcher.providers.answers import glimpse
from watcher.redaction.redactor import MAX_LENGTH, SECRETS, WINDOW_LENGTH, WITHHELD, Redactor
from watcher.redaction.safe_text import one_line

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
    "six times": lambda text: functools.reduce(lambda told, _: quote(told, safe=""), range(6), quote(text, safe="")),
    "braces": lambda text: "".join(f"\\u{{{ord(letter):x}}}" for letter in text),
    "octal": lambda text: "".join(f"\\{ord(letter):03o}" for letter in text),
    "zero width": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "turned around": lambda text: f"\u2066{text}\u2069".replace("-", "\u2060-\u200e"),
    "tags": lambda text: text.replace("f", "f\U000e0041"),
    "zero width in an escape": lambda text: "".join(f"%\u200b{ord(letter):02x}" for letter in text),
    "nul": "\0".join,
    "full width": lambda text: "".join(chr(ord(letter) + 0xFEE0) for letter in text),
    "marks": "\u0301".join,
    "mathematical": lambda text: "".join(
        chr(0x1D5BA + ord(letter) - ord("a")) if letter.islower() else letter for letter in text
    ),
    "spaces": " ".join,
    "newlines": "\r\n".join,
    "json newlines": "\\n".join,
    "bold": "<b></b>".join,
    "broken words": "<wbr>".join,
    "coloured": "\x1b[1;31m".join,
}
"""Each of every part of a secret that is long enough."""
CODES = {
    "base64": base64.b64encode,
    "url-safe base64": base64.urlsafe_b64encode,
    "without padding": lambda data: base64.b64encode(data).rstrip(b"="),
    "basic": lambda data: b"Basic " + base64.b64encode(b"user:" + data),
    "in a sentence": lambda data: b"token=" + base64.b64encode(data) + b",next",
    "lines": base64.encodebytes,
    "lines of five": lambda data: b"\n ".join(re.findall(rb".{1,5}", base64.b64encode(data))),
    "base64 of utf-16": lambda data: base64.b64encode(data.decode().encode("utf-16-le")),
    "twice": lambda data: base64.b64encode(base64.b64encode(data)),
    "base64 of percent": lambda data: base64.b64encode(quote(data, safe="").encode()),
    "percent of base64": lambda data: quote(base64.b64encode(data), safe="").encode(),
    "hex": lambda data: data.hex().encode(),
    "upper hex": lambda data: data.hex().upper().encode(),
    "hex dump": lambda data: b"00000000: " + data.hex(" ", 2).encode() + b"  |................|",
    "colons": lambda data: data.hex(":").encode(),
    "list of bytes": lambda data: b", ".join(b"0x%02x" % byte for byte in data),
    "quoted printable": lambda data: b"".join(b"=%02X" % byte for byte in data),
}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    monkeypatch.setattr(SECRETS, "_secrets", [])
    monkeypatch.setattr(SECRETS, "_windows", frozenset())
    SECRETS.add([SECRET])


@pytest.mark.parametrize("encode", CODES.values(), ids=CODES)
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz "])
def test_a_secret_in_a_code_is_withheld_wherever_it_begins(encode, before):
    data = encode(SECRET.encode()).decode()
    assert SECRETS.redacted(f"HTTP 403: {before}{data}.") == WITHHELD
    assert SECRETS.redacted(f"HTTP 403: {before}{data}.".replace("_", "-")) == WITHHELD
    inside = encode(before.encode() + SECRET.encode()[3:20] + b"tail").decode()
    assert one_line(f"HTTP 403: {inside}.") == WITHHELD


@pytest.mark.parametrize("between", ["-", " - ", '" + "', "', '", "_", "...", "|\n|", "=\r\n", "\u2011"])
def test_a_secret_that_was_split_is_withheld(between):
    for size in range(1, 8):
        assert SECRETS.redacted(between.join(re.findall(f".{{1,{size}}}", SECRET))) == WITHHELD
    assert SECRETS.redacted(between.join("0c3b77aa")) == WITHHELD
    assert SECRETS.redacted(between.join("0c3b77a")) != WITHHELD


def test_what_is_wrapped_too_often_or_too_long_is_withheld_unread():
    text = "%63"
    for _ in range(20):
        text = quote(text, safe="").replace("%25", "\\u0025")
    assert SECRETS.redacted(f"see what {text} is") == WITHHELD
    assert SECRETS.redacted("x" * 60_000_000) == SECRETS.scrubbed("x" * 60_000_000) == WITHHELD
    assert SECRETS.redacted("\ufdfa" * 5_000) == WITHHELD  # each of which stands for eighteen letters
    assert one_line("x" * 60_000_000) == "x" * 159 + "…"


TEXTS = [
    "HTTP 503: <html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx/1.24</body></html>",
    "JSON-RPC error -32602: Invalid param: could not find account (3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa)",
    'the answer is not what the API documents: Expected `str`, got `int` - at `$.tokens[0].address` (812 bytes: {"a":1})',
    "0x00000005dd3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b, 1000000000000000000000000",
    "Ungültiger Schlüssel: 鍵が無効です, \u05e9\u05dc\u05d5\u05dd, caf\u00e9 &amp; 100%25",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_holds_no_secret_is_shown_as_it_is(text):
    SECRETS.add(["8d3f2c1a-77aa-4b0e-9c11-0123456789ab", base64.b64encode(b"account:0123456789abcdef").decode()])
    assert SECRETS.redacted(text) == text


def test_a_secret_that_is_base64_is_known_by_what_stands_in_it_too():
    SECRETS.add([base64.b64encode(b"account-7:canary-6f0b9d").decode()])
    assert SECRETS.redacted("who is account-7:canary-6f0b9d?") == WITHHELD


def test_a_name_that_we_tell_ourselves_is_no_part_of_a_secret_that_is_called_like_it():
    hidden = Redactor(["acme-api-key-canary-51"])
    assert hidden.leaks("set ACME_API_KEY")
    hidden.allow(["ACME_API_KEY"])
    assert not hidden.leaks("set ACME_API_KEY, [providers.acme]: api_key_env")
    assert hidden.leaks("key-canary")


def test_our_own_line_keeps_what_is_beside_a_whole_secret_and_a_traceback_its_other_lines():
    assert SECRETS.scrubbed(f"GET /?api-key={SECRET} failed") == "GET /?api-key=*** failed"
    assert SECRETS.scrubbed(f"one\n{quote(SECRET)}\nthree") == f"one\n{WITHHELD}\nthree"
    assert SECRETS.scrubbed("one\ncanary-\n9f0c/3b\n+77aa\nthree") == WITHHELD
    assert SECRETS.scrubbed({SECRET: [("x", {quote(SECRET)})], "n": 1.5, "none": None}) == {
        "***": [["x", [WITHHELD]]],
        "n": 1.5,
        "none": None,
    }


def longest_part(text):
    """The longest part of the secret that stands in the text."""
    parts = (SECRET[i:k] for i in range(len(SECRET)) for k in range(i + 1, len(SECRET) + 1))
    return max((part for part in parts if part.lower() in text.lower()), key=len, default="")


def test_a_secret_is_blotted_out_among_others_of_any_length():
    parts = [SECRET[:length] for length in range(4, len(SECRET))]
    SECRETS.add([f"{part}{part}" for part in parts])
    for part in parts:
        assert SECRETS.masked(f"{part}{part}") == "***"
        assert SECRETS.masked(f"x{part}{part}y") == "x***y"
    assert SECRETS.masked("") == ""


def test_a_traceback_that_is_too_long_to_be_searched_keeps_its_beginning_and_its_end():
    where = "".join(f'  File "loop.py", line {line}, in run\n' for line in range(5_000))
    told = SECRETS.scrubbed(f"Traceback:\n{where}{SECRET[2:12]}\n{where}OSError: no {SECRET} here")
    assert told.startswith('Traceback:\n  File "loop.py", line 0, in run\n')
    assert told.endswith("line 4999, in run\nOSError: no *** here")
    assert told.count("left out") == 1
    assert len(told) < MAX_LENGTH + 100
    assert SECRET[2:10] not in told
    assert SECRETS.scrubbed(f"{'x' * MAX_LENGTH}\n{SECRET}") == WITHHELD


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("before", [*range(0, 60, 7), 150, 155, 195, 400])
def test_a_quote_is_withheld_wherever_it_would_have_been_cut(escape, before):
    text = "x" * before + escape(SECRET) + "y" * 300
    for shown in (one_line(text), glimpse(text.encode())):
        assert WITHHELD in shown or len(longest_part(shown)) < 4


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_part_of_the_secret_is_withheld_and_less_is_not(escape):
    for start in range(len(SECRET) - WINDOW_LENGTH + 1):
        assert SECRETS.redacted(f"see {escape(SECRET[start : start + WINDOW_LENGTH])}.") == WITHHELD
    assert SECRETS.redacted(f"see {SECRET[:7]}.") == f"see {SECRET[:7]}."


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
        assert len(longest_part(shown)) < WINDOW_LENGTH


@pytest.mark.parametrize("read", [evm, solana, felt])
def test_a_key_where_an_address_should_stand_is_not_told(read):
    for before in range(80):
        with pytest.raises(AddressError) as error:
            read("x" * before + SECRET + "y" * 80)
        assert len(longest_part(str(error.value))) < 4 or WITHHELD in str(error.value)


def test_a_key_that_came_later_is_withheld_too_and_a_short_one_is_blotted_out():
    hidden = Redactor(["canary-one"])
    hidden.add(["canary-two", "short", ""])
    assert [hidden.redacted(text) for text in ("x canary-o", "x nary-two", "a short one")] == [
        WITHHELD,
        WITHHELD,
        "a *** one",
    ]


def test_nothing_is_withheld_where_nothing_is_hidden():
    assert Redactor(()).redacted("HTTP 404: \\u0041%41&amp;") == "HTTP 404: \\u0041%41&amp;"


def test_a_symbol_that_repeats_a_secret_is_withheld_before_it_is_committed():
    store = Store()
    assert [store.denomination("base", 6, symbol).symbol for symbol in ("USDC", f"x{SECRET[:9]}", None)] == [
        "USDC",
        WITHHELD,
        None,
    ]
