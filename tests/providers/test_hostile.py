"""Answers that are made to hold the loop, to fill the memory or to poison a journal."""

import itertools
import json
import sys

import msgspec
import pytest

from tests.providers.cases import cases
from tests.providers.golden import ACCOUNT, STARK_ACCOUNT
from tests.providers.tables import LATER, asked, built, lanes
from watcher.journal.record_limits import MAX_RECORD_BYTES
from watcher.ledger.pending_changes import PendingChange, commit_row
from watcher.ledger.record import BalanceRecord, Denomination
from watcher.model.addresses import AddressError, evm
from watcher.model.amounts import SYMBOL
from watcher.model.bulk_listing import BulkListing
from watcher.model.events import JSON, MSGPACK, changed
from watcher.model.keys import Key
from watcher.model.targets import LISTING
from watcher.poller.bulk import LARGE
from watcher.providers.answers import MAX_DOCUMENT_BYTES, MAX_VALUES, ROWS_PER_STEP, decode
from watcher.providers.failures import Failure, Malformed
from watcher.providers.gaps import SUMS, Sums
from watcher.providers.ondo_bulk import TOKENS
from watcher.providers.protocol import BulkProvider, Response
from watcher.redaction.redactor import SECRETS
from watcher.runtime.slicing import run_at_once

CASES = cases()
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def case_name(case):
    return f"{case.name}-{case.provider.groups[-1].lanes[-1].endpoint}-{len(case.request.path)}"


def mint(number):
    """The `number`-th of a series of Solana addresses."""
    text, rest = "", 2**255 + number
    while rest:
        rest, digit = divmod(rest, 58)
        text = DIGITS[digit] + text
    return text


def heard(provider, request, response):
    """As the poller would. Raises Failure."""
    large = isinstance(provider, BulkProvider) and response.status == 200 and len(response.body) >= LARGE
    if large and request.targets[0].family == LISTING:
        return run_at_once(provider.read_in_slices(request, response))
    return provider.read(request, response)


def readings_in(provider, request, body):
    try:
        return list(heard(provider, request, Response(200, body, LATER)).readings)
    except (Failure, ValueError):
        return []


UNDERSTOOD = [case for case in CASES if any(readings_in(case.provider, case.request, body) for body in case.answers)]


# --- what is opened in one go


@pytest.mark.parametrize(
    "body",
    [
        b'{"SOL":' + b"9" * MAX_DOCUMENT_BYTES + b"}",
        b'{"error":"' + b"a" * MAX_DOCUMENT_BYTES + b'"}',
        b'{"tokens":[' + b"{}," * (MAX_VALUES // 2) + b"{}]}",
        b"{" + b",".join(b'"k%d":1' % number for number in range(MAX_VALUES + 1)) + b"}",
        b"[" * (MAX_VALUES + 1),
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
    ids=["number", "text", "rows", "members", "depth", "blank"],
)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_what_would_take_long_to_open_is_not_opened(case, body):
    for status in (200, 500):
        response = Response(status, body, LATER)
        with pytest.raises(Failure):
            heard(case.provider, case.request, response)
    with pytest.raises(Malformed, match="in one piece"):
        decode(msgspec.json.Decoder(), body)


def jupiter(count):
    rows = ",".join(f'"{mint(number)}":{{"amount":"{number}","slot":5}}' for number in range(count))
    return built("jupiter", {"account": ACCOUNT}), f'{{"SOL":{{"amount":"1","slot":5}},{rows}}}', count + 1


def holdings(count):
    rows = ",".join(
        f'"{mint(number)}":[{{"account":"{number}","amount":"{number}","decimals":9}}]' for number in range(count)
    )
    provider = built("jupiter", {"account": ACCOUNT}, endpoint="holdings")
    return provider, f'{{"amount":"1","tokens":{{{rows}}}}}', count + 1


def bloxroute(count):
    told = '"settledAmount":1,"unsettledAmount":0,"openOrdersAmount":0'
    rows = ",".join(f'{{"symbol":"A","tokenMint":"{mint(number)}",{told}}}' for number in range(count))
    return built("bloxroute", {"account": ACCOUNT}), f'{{"tokens":[{rows}]}}', 3 * count


def tokenkit(count):
    rows = ",".join(
        f'{{"account":{{"address":"{STARK_ACCOUNT}"}},"token":{{"address":"{number + 1:#x}"}},"balance":"{number}",'
        '"last_updated":"2023-11-14T22:13:20Z"}'
        for number in range(count)
    )
    return built("tokenkit", {"account": STARK_ACCOUNT}), f'{{"success":true,"count":{count},"data":[{rows}]}}', count


def ondo_with_more(count):
    """Than documented."""
    provider, body, count = ondo_otherwise(count)
    return provider, f'{{"page":1,{body[1:]}', count


def ondo_otherwise(count):
    """Not laid out as documented."""
    rows = ",".join(f'{{"balance":"1","holderAddress":{{"account":"{number + 1:#042x}"}}}}' for number in range(count))
    token = f'{{"balances":[{rows}],"tokenAddress":"{1:#042x}","tokenSymbol":"A"}}'
    return built("ondo", {"chain": "ethereum-1"}), f'{{"tokens":[{token}]}}', count


@pytest.mark.parametrize("made", [jupiter, holdings, bloxroute, tokenkit, ondo_with_more])
def test_a_large_listing_is_read_in_slices_and_says_what_it_says_in_one_go(made):
    provider, body, count = made(3000)
    request = asked(provider, len(lanes(provider)) - 1)
    response = Response(200, body.encode(), LATER)
    assert len(response.body) > LARGE
    slices, breaths = provider.read_in_slices(request, response), 0
    while True:
        try:
            next(slices)
        except StopIteration as end:
            found = end.value
            break
        breaths += 1
    assert breaths >= 3
    assert len(found.readings) == count
    assert found == made(3000)[0].read(request, response)


LARGER_THAN_IS_OPENED_AT_ONCE = [(jupiter, 35_000), (holdings, 26_000), (bloxroute, 21_000), (tokenkit, 18_000)]
"""Each of a few megabytes, and more than MAX_VALUES values."""


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("made", "count"), [*LARGER_THAN_IS_OPENED_AT_ONCE, (ondo_otherwise, 40_000)])
def test_what_is_too_large_to_be_opened_in_one_go_is_opened_in_pieces_however_it_is_laid_out(made, count, indent):
    provider, body, expected = made(count)
    if indent is not None:
        body = json.dumps(json.loads(body), indent=indent)
    with pytest.raises(Malformed, match="in one piece"):
        decode(msgspec.json.Decoder(), body.encode())
    found = heard(provider, asked(provider, len(lanes(provider)) - 1), Response(200, body.encode(), LATER))
    assert (len({reading.key for reading in found.readings}), found.partial, found.remark) == (expected, False, None)


def damaged(body, cut, text):
    """The body with a text behind the row that ends next."""
    place = body.index("}", int(len(body) * cut)) + 1
    return body[:place] + text + body[place:]


@pytest.mark.parametrize("text", [",", "]", "}", ',"x":1', ",{}", "}]", '"', ",null"])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("made", [jupiter, holdings, bloxroute, tokenkit])
def test_pieces_say_what_the_whole_would_whatever_is_wrong_in_one_of_them(made, cut, text, monkeypatch):
    provider, body, _ = made(300)
    request = asked(provider, len(lanes(provider)) - 1)
    response = Response(200, damaged(body, cut, text).encode(), LATER)

    def told():
        try:
            return provider.read(request, response)
        except Failure as failure:
            return type(failure)

    whole = told()
    for module in ("jupiter", "bloxroute", "tokenkit"):
        monkeypatch.setattr(f"watcher.providers.{module}.PIECE", 0)
    monkeypatch.setattr("watcher.providers.json_pieces.decode_pieces.__defaults__", (2**12,))
    assert told() == whole


@pytest.mark.parametrize("made", [jupiter, holdings, bloxroute, tokenkit])
def test_more_rows_than_there_can_be_are_refused(made, monkeypatch):
    monkeypatch.setattr("watcher.providers.json_pieces.ROWS", 3000)
    provider, body, _ = made(5000)
    with pytest.raises(Malformed, match="more than 3000 rows"):
        heard(provider, asked(provider, len(lanes(provider)) - 1), Response(200, body.encode(), LATER))


@pytest.mark.parametrize("made", [jupiter, holdings])
def test_a_mint_that_is_told_in_two_pieces_is_a_contradiction(made):
    provider, body, _ = made(35_000)
    request = asked(provider)
    with pytest.raises(Malformed, match="one mint twice"):
        heard(provider, request, Response(200, body.replace(mint(30_000), mint(5)).encode(), LATER))


def test_more_tokens_than_there_can_be_are_refused():
    tokens = ",".join(
        f'{{"tokenAddress":"{number + 1:#042x}","tokenSymbol":"A","balances":[]}}' for number in range(TOKENS + 1)
    )
    provider = built("ondo", {"chain": "ethereum-1"})
    request = asked(provider)
    response = Response(200, f'{{"tokens":[{tokens}]}}'.encode(), LATER)
    found = run_at_once(provider.read_in_slices(request, response))
    assert (len(found.readings), found.partial) == (0, False), "one by one, since the document is small enough"


# --- what is wrong is told of one


def called(name, work):
    """How often a function of that name was called meanwhile."""
    calls = itertools.count()

    def seen(frame, event, _argument):
        if event == "call" and frame.f_code.co_name == name:
            next(calls)

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return next(calls)


def wrong_amounts():
    rows = ",".join(f'"{mint(number)}":{{"amount":"{"x" * 90}","slot":5}}' for number in range(2000))
    return built("jupiter", {"account": ACCOUNT}), f'{{"SOL":{{"amount":"1","slot":5}},{rows}}}'


def wrong_names():
    rows = ",".join(f'"{number}":{{"amount":"1","slot":5}}' for number in range(3000))
    return built("jupiter", {"account": ACCOUNT}), f'{{"SOL":{{"amount":"1","slot":5}},{rows}}}'


def wrong_times():
    provider, body, _ = tokenkit(2000)
    return provider, body.replace("2023-11-14T22:13:20Z", "y" * 60, 1999)


def wrong_holders():
    rows = ",".join(f'{{"holderAddress":{{"account":"{number}"}},"balance":"1"}}' for number in range(3000))
    good = f'{{"holderAddress":{{"account":"{1:#042x}"}},"balance":"1"}}'
    token = f'{{"tokenAddress":"{1:#042x}","tokenSymbol":"A","balances":[{good},{rows}]}}'
    return built("ondo", {"chain": "ethereum-1"}), f'{{"tokens":[{token}]}}'


@pytest.mark.parametrize("made", [wrong_amounts, wrong_names, wrong_times, wrong_holders])
def test_of_thousands_of_rows_that_are_wrong_one_is_made_fit_to_be_shown(made):
    """It is searched for our keys, which takes longer than to find the row wrong."""
    provider, body = made()
    request = asked(provider, len(lanes(provider)) - 1)
    response = Response(200, body.encode(), LATER)
    remarks = []

    def work():
        found = run_at_once(provider.read_in_slices(request, response))
        if isinstance(found.readings, BulkListing):
            remarks.append(run_at_once(found.readings.readable_rows())[1])
        else:
            remarks.append(found.remark)

    assert called("betrayed", work) <= 4
    assert "not all can be understood" in remarks[0]
    assert "more)" in remarks[0]


def test_what_is_no_address_is_cut_before_it_is_searched_for_secrets():
    SECRETS.add(["a-key-of-nobody-01"])
    with pytest.raises(AddressError) as raised:
        evm("x" * 3_000_000)
    assert called("<genexpr>", lambda: str(raised.value)) < 5000
    assert len(str(raised.value)) < 200


# --- what a row can hold, whatever stands in it

EXTREMES = [
    '"%s"' % ("s" * 200_000),
    '"%s"' % ("9" * 100_000),
    '"%s"' % ("s" * (SYMBOL + 1)),
    '"\\ud800"',
    '"\\udc00x"',
    '"\\u0000"',
    '"a/b"',
    '"\\u202e\\u0007"',
    "9" * 400,
    "9" * 100_000,
    "1e400",
    "1e999999999",
    '"1e999999999"',
    '"1e100"',
    '"-1e-100"',
    "-1",
    str(2**63),
    str(2**64),
    str(-(2**63) - 1),
    "true",
    "{}",
    "[]",
    '"9999-12-31T23:59:59.999999999Z"',
    '"0001-01-01T00:00:00+23:59"',
]


def places(value, path=()):
    """Where anything stands in a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from places(part, (*path, name))


def put(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def renamed(value, path, new):
    """`value` with the member that `path` ends in called `new`."""
    if len(path) > 1:
        return put(value, path[:1], renamed(value[path[0]], path[1:], new))
    return {new if name == path[0] else name: part for name, part in value.items()}


def extremes(seed):
    """The document with each of EXTREMES in each place of it, and each member under an extreme name."""
    document = json.loads(seed)
    for path in places(document):
        text = json.dumps(put(document, path, "@here@"))
        for extreme in EXTREMES:
            yield text.replace('"@here@"', extreme)
        if path and isinstance(path[-1], str):
            for name in ("s" * 200_000, "a/b", "\0", "x" * 100):
                yield json.dumps(renamed(document, path, name))


@pytest.mark.parametrize("case", UNDERSTOOD, ids=case_name)
def test_whatever_stands_in_a_row_its_records_are_small_and_every_journal_takes_them(case):
    provider, request = case.provider, case.request
    seed = next(body for body in case.answers if readings_in(provider, request, body))
    taken = 0
    for body in extremes(seed):
        for one in readings_in(provider, request, body.encode()):
            fits(one)
            taken += 1
    assert taken > 20


def fits(one):
    """Both records of a change to it, in both encodings, under a key that is read back."""
    denomination = Denomination(one.unit, one.decimals, one.symbol)
    record = BalanceRecord(one.amount or "0", 3, one.order, denomination=denomination)
    row = commit_row("e0", one.key, PendingChange(1, "9" * 78, None, 1, one.slot, one.as_of), record)
    event = changed("e0", row.state, "9" * 78, row.state.observed_at)
    for codec in (JSON, MSGPACK):
        for data in (codec.encode(row.state), codec.encode(event)):
            assert len(data) < 3000 < MAX_RECORD_BYTES
    text = str(one.key)
    assert Key.parse(text.encode().decode()) == one.key
    assert "\0" not in text
    assert len(text) < 250
    assert one.symbol is None or len(one.symbol) <= SYMBOL


# --- what is remembered


def test_how_many_rows_a_balance_had_is_not_remembered_of_all_that_were_ever_named():
    sums = Sums()
    for number in range(0, SUMS + 5000, 1000):
        sums.remember(dict.fromkeys((Key("p", "c", "a", f"t{number + more}") for more in range(1000)), 2))
    one = {Key("p", "c", "a", f"t{number}"): 1 for number in (0, SUMS)}
    assert sums.incomplete(one) == {Key("p", "c", "a", f"t{SUMS}")}, "those named last are"
    assert ROWS_PER_STEP < 1000
