"""Text from outside cannot move a cursor, hide, turn around or fill a screen, on whatever way it comes to one."""

import io
import logging
import sys
import unicodedata

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from watcher.app import cli
from watcher.app.check.ask import table
from watcher.app.check.report import AnsweredBalance
from watcher.client.stream import FullSnapshot
from watcher.client.tail import DIM, GREEN, PLAIN, RED, TailColumns, as_json
from watcher.logs import setup
from watcher.model.events import BalanceChanged
from watcher.redaction import safe_text
from watcher.redaction.redactor import SECRETS, WITHHELD
from watcher.relay.messages import Update

SECRET = "nobodys-4e1b77ac90"
"""No canary: pytest shows what is logged as it came, beside the way out that is judged here."""
ATTACKS = {
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "clear": ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    "title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "clipboard": ("\x1b]52;c;cm0gLXJm\x1b\\", r"\x1b]52;c;cm0gLXJm\x1b" + "\\"),
    "C1 CSI": ("\x9b31m", r"\x9b31m"),
    "C1 OSC": ("\x9d0;x\x9c", r"\x9d0;x\x9c"),
    "backspaces": ("100\x08\x08\x081", r"100\x08\x08\x081"),
    "delete": ("a\x7fb", r"a\x7fb"),
    "nul": ("a\0b", r"a\x00b"),
    "override": ("US\u202eCDT", r"US\u202eCDT"),
    "isolate": ("\u2067x\u2069", r"\u2067x\u2069"),
    "marks of direction": ("\u200e\u200f\u061cx", r"\u200e\u200f\u061cx"),
    "zero width": ("US\u200bDC\u2060\ufeff", r"US\u200bDC\u2060\ufeff"),
    "tags": ("x\U000e0041", r"x\U000e0041"),
    "private": ("\ue000\U000f0000", r"\ue000\U000f0000"),
    "surrogate": ("x\udc1b", r"x\udc1b"),
    "unassigned": ("x\u0378", r"x\u0378"),
    "blank": ("\u3164\u2800x", r"\u3164\u2800x"),
    "selectors": ("x\U000e0100\ufe01", r"x\U000e0100\ufe01"),
    "tower": ("Z" + "\u0335" * 5, "Z\u0335\u0335\u0335" + r"\u0335\u0335"),
    "lone mark": ("\u0301x", r"\u0301x"),
}
LINES = {
    "return": "USDC\rUSDT",
    "newline": "USDC\n2026-01-01 [info] all is well",
    "tab": "a\tb",
    "next line": "a\x85b",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "vertical tab": "a\x0bb\x0cc",
}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    for name, nothing in (("_secrets", []), ("_windows", frozenset())):
        monkeypatch.setattr(SECRETS, name, nothing)
    SECRETS.add([SECRET])


@pytest.mark.parametrize(("text", "shown"), ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_plainly_seen_is_shown_as_an_escape(text, shown):
    assert safe_text.one_line(text) == shown
    assert safe_text.safe(text) == shown


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_a_text_stays_on_its_line(text):
    assert len(safe_text.one_line(text).splitlines()) == 1
    assert safe_text.one_line(text) == " ".join(text.split())
    assert len(safe_text.safe(text).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["USDC", "Tether USD₮", "日本円", "שלום", "café", "cafe\u0301", "🐕", "❤\ufe0f", "नमस्ते", "a  b"]
)
def test_what_is_plainly_seen_stays_as_it_is(text):
    assert safe_text.safe(text) == text


@given(st.text(max_size=300), st.integers(1, 60))
def test_whatever_it_is_it_is_printable_and_no_longer_than_asked(text, most):
    for shown in (safe_text.one_line(text, most), safe_text.safe(text, most)):
        assert len(shown) <= max(most, len(WITHHELD))
        assert all(letter.isprintable() for letter in shown)
        assert safe_text.safe(shown, 1000) == shown
        shown.encode()


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_json_says_the_same_with_escapes(text):
    told = msgspec.json.encode({"a": text}).decode()
    assert msgspec.json.decode(safe_text.json(told)) == {"a": text}
    assert safe_text.json(told).isprintable()


def test_a_document_stays_one_where_our_own_words_repeat_a_part_of_a_key():
    SECRETS.add(["write-the-name-of"])
    document = {"next_step": "write the name of a variable", "all": ["as it is", 1, None, "\u202e\n"]}
    shown = safe_text.json_document(document)
    assert msgspec.json.decode(shown) == document | {"next_step": WITHHELD}
    assert all(line.isprintable() for line in shown.split("\n"))


def test_a_column_is_as_wide_as_what_is_seen():
    assert [safe_text.width(text) for text in ("abc", "日本", "cafe\u0301", "🐕")] == [3, 4, 4, 2]
    assert safe_text.pad_right("日本", 6) == "日本  "
    assert safe_text.pad_left("cafe\u0301", 6) == "  cafe\u0301"


def event(**told):
    parts = {
        "id": "i",
        "provider": "ondo",
        "chain": "eip155:1",
        "account": "0x" + "ab" * 20,
        "token": "0x" + "cd" * 20,
        "kind": "total",
        "symbol": "USDC",
        "version": 1,
        "previous_amount": "1",
        "amount": "2",
        "delta": "1",
        "unit": "base",
        "decimals": None,
        "slot": None,
        "as_of": None,
        "previous_observed_at": "2026-01-01T00:00:00.000000Z",
        "observed_at": "2026-01-01T00:00:00.000000Z",
    }
    return BalanceChanged(**parts | told)


@pytest.mark.parametrize(
    "field", ["provider", "account", "token", "symbol", "kind", "amount", "delta", "previous_amount"]
)
@pytest.mark.parametrize("text", [*(text for text, _ in ATTACKS.values()), *LINES.values()])
def test_tail_shows_nothing_of_a_relay_that_a_screen_would_obey(field, text):
    told = event(**{"symbol": None, field: text})
    line = TailColumns(colour=True).line(told)
    for ours in (DIM, GREEN, RED, PLAIN):
        line = line.replace(ours, "")
    assert line.isprintable()
    assert TailColumns(colour=False).line(told).isprintable()
    assert safe_text.json(
        as_json(Update(event=event(symbol=text.replace("\udc1b", "")), cursor=text.replace("\udc1b", "")))
    ).isprintable()
    assert TailColumns(colour=False).gap(FullSnapshot(text, [], text)).isprintable()


def test_tail_tells_no_token_that_the_relay_repeats():
    line = TailColumns(colour=False).line(event(symbol=f"x{SECRET}", previous_amount=SECRET, provider=SECRET))
    assert "nobodys" not in line
    assert "nobodys" not in TailColumns(colour=False).gap(FullSnapshot(SECRET, [], SECRET))


def test_a_symbol_without_end_fills_no_screen_and_columns_stay_where_they_are():
    columns = TailColumns(colour=False)
    lines = [columns.line(event(symbol=symbol)) for symbol in ("W" * 100_000, "日本円", "USDC")]
    assert len(lines[0]) < 200
    assert len({safe_text.width(line[: line.index("→")]) for line in lines}) == 1


@pytest.mark.parametrize("text", [*(text for text, _ in ATTACKS.values()), *LINES.values()])
def test_check_and_errors_of_ours_show_nothing_that_a_screen_would_obey(text, capsys):
    for line in table("ondo", [AnsweredBalance("eip155:1", text, text, None, "total", "1", "base")]):
        safe_text.print_line(line)
    safe_text.print_line(f"watcher: {text}", sys.stderr)
    told = capsys.readouterr()
    assert all(line.isprintable() for line in (told.out + told.err).split("\n"))
    assert (told.out.count("\n"), told.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["\x1b[31mrun"],
        ["run", "--\x1b[31mx\u202e"],
        ["demo", "--seconds", "\x1b[2J"],
        ["run", "--only", "\x9b\r\n"],
        ["run", "--api-key", SECRET],
        ["run", f"--api-key={SECRET}"],
        ["tail", "ws://h", SECRET],
        ["tail", f"http://me:{SECRET}@h/\x1b[31m"],
        ["run", "-c", "/nowhere/\x1b[31m\n"],
    ],
)
def test_what_was_typed_comes_back_fit_for_a_screen_and_without_its_values(arguments, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    SECRETS._secrets, SECRETS._windows = [], frozenset()
    try:
        status = cli.main(arguments, {})
    except SystemExit as end:
        status = end.code
    assert status == 2
    told = capsys.readouterr().err
    assert told
    assert all(line.isprintable() for line in told.split("\n"))
    assert "nobodys" not in told


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "colours"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(stream, environment, colours, monkeypatch):
    assert safe_text.coloured(stream, environment) == colours
    if stream.isatty():
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        setup.configure()
        structlog.get_logger().warning("bug")
        assert ("\x1b[" in stream.getvalue()) == colours


@pytest.fixture
def console(monkeypatch):
    """stderr as a terminal; what stands on it without the colours of ours."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    setup.configure()
    styles = {text for text in vars(structlog.dev).values() if isinstance(text, str) and text.startswith("\x1b[")}

    def shown():
        text = terminal.getvalue()
        for style in styles:
            text = text.replace(style, "")
        return text

    return shown


@pytest.mark.parametrize("text", [*(text for text, _ in ATTACKS.values()), *LINES.values()])
def test_a_line_on_the_console_shows_nothing_that_a_screen_would_obey(console, text):
    handlers = logging.getLogger().handlers
    # Those of pytest would put the text as it is into the report, and a worker cannot send one that is no Unicode.
    handlers[:] = [each for each in handlers if isinstance(each.formatter, structlog.stdlib.ProcessorFormatter)]
    log = structlog.get_logger()
    log.warning(
        text,
        **{f"key{text}": text},
        deep={text: [text, (text,)]},
        error=ValueError(text),
        raw=text.encode("utf-8", "replace"),
    )
    logging.getLogger("a.library").error("said %s", text)
    error = ExceptionGroup(text, [ValueError(text), ValueError(f"of {SECRET}")])
    error.add_note(text)
    log.error("bug", exc_info=error)
    lines = console().split("\n")
    assert all(line.isprintable() for line in lines), [line for line in lines if not line.isprintable()]
    assert any("ExceptionGroup" in line for line in lines)
    assert "nobodys" not in console()
    assert sum("said" in line for line in lines) == 1


def test_a_line_of_json_is_ascii(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    setup.configure()
    for text in (*(text for text, _ in ATTACKS.values()), *LINES.values()):
        structlog.get_logger().warning(text, **{f"key{text}": text})
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert len(lines) == len(ATTACKS) + len(LINES)
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_an_error_that_nobody_foresaw_is_told_without_secrets_and_fit_for_a_screen(capsys):
    error = RuntimeError(f"GET https://h/?api-key={SECRET}\x1b[2J")
    error.__cause__ = ValueError("\u202e")
    cli.print_bug(RuntimeError, error, None)
    told = capsys.readouterr().err
    assert "RuntimeError: GET https://h/?api-key=***" in told
    assert all(line.isprintable() for line in told.split("\n"))


def test_every_category_is_either_seen_or_escaped():
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            assert not safe_text._is_safe(letter)
