"""Ondo: four shapes of a watch, a minute's cache, errors with and without a code."""

import pytest

from tests.providers import golden
from tests.providers.golden import AAPL, HOLDER, OTHER_HOLDER, TSLA, WSOL
from tests.providers.tables import amounts, answered, asked, built
from watcher.limits.windows import Limit
from watcher.model.addresses import ETHEREUM, SOLANA
from watcher.model.keys import Scope
from watcher.providers.failures import Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.runtime.config_section import SettingsError

CHAIN = {"chain": "ethereum-1"}
ONE = (
    b'{"tokens":[{"tokenAddress":"%s","tokenSymbol":"AAPLon","balances":[{"holderAddress":{"account":"%s"},"balance":"0.50"}]}]}'
    % (
        AAPL.encode(),
        HOLDER.encode(),
    )
)


@pytest.mark.parametrize(
    ("watch", "params"),
    [
        ({}, ()),
        ({"account": HOLDER}, (("userAddress", HOLDER),)),
        ({"token": AAPL}, (("tokenAddress", AAPL),)),
        ({"account": HOLDER, "token": AAPL}, (("userAddress", HOLDER), ("tokenAddress", AAPL))),
    ],
)
def test_all_four_shapes_of_a_watch_are_asked_and_read(watch, params):
    provider = built("ondo", CHAIN | watch)
    request = asked(provider)
    assert (request.method, request.path, request.params) == ("GET", "/v1/chains/ethereum-1/balances", params)
    found = answered(provider, ONE)
    assert found.listing == Scope("p", ETHEREUM, watch.get("account"), watch.get("token"))
    (reading,) = found.readings
    assert (reading.amount, reading.unit, reading.decimals, reading.symbol) == ("0.5", "decimal", None, "AAPLon")
    assert (reading.order, reading.slot, reading.as_of) == (None, None, None)


def test_the_given_page_is_read():
    found = answered(built("ondo", CHAIN), golden.F14)
    assert amounts(found.readings) == {
        (HOLDER, AAPL, "total"): "0.467583800117038432",
        (OTHER_HOLDER, AAPL, "total"): "0.641380199330235549",
        ("0x00000688768803bbd44095770895ad27ad6b0d95", TSLA, "total"): "0.030594824589372964",
        (OTHER_HOLDER, TSLA, "total"): "0.088854297224463519",
    }


def test_the_pages_own_ellipsis_is_no_row():
    found = answered(built("ondo", CHAIN), golden.F14_PAGE)
    assert amounts(found.readings) == amounts(answered(built("ondo", CHAIN), golden.F14).readings)
    assert found.partial
    assert not answered(built("ondo", CHAIN), golden.F14).partial


def test_no_tokens_is_a_complete_listing_of_nothing():
    found = answered(built("ondo", CHAIN | {"account": HOLDER}), golden.F15)
    assert found.readings == []
    assert found.listing == Scope("p", ETHEREUM, HOLDER)


def test_checksummed_addresses_are_the_same_accounts():
    body = ONE.replace(HOLDER.encode(), b"0x13116E8b4FFC8125B859EC60917FBA540E59E55E")
    found = answered(built("ondo", CHAIN | {"account": HOLDER.replace("e", "E")}), body)
    assert [one.key.account for one in found.readings] == [HOLDER]


def test_solana_rows_keep_their_case():
    body = ONE.replace(AAPL.encode(), golden.JUPSOL.encode()).replace(HOLDER.encode(), WSOL.encode())
    (reading,) = answered(built("ondo", {"chain": "solana-900"}), body).readings
    assert (reading.key.chain, reading.key.account, reading.key.token) == (SOLANA, WSOL, golden.JUPSOL)


@pytest.mark.parametrize(
    "watch", [{"account": OTHER_HOLDER}, {"token": TSLA}, {"account": OTHER_HOLDER, "token": AAPL}]
)
def test_an_answer_about_others_gives_no_reading(watch):
    with pytest.raises(Malformed, match="did not ask"):
        answered(built("ondo", CHAIN | watch), ONE)


def test_one_holder_told_twice_and_differently_gives_no_reading():
    row = b'{"holderAddress":{"account":"%s"},"balance":"%s"}'
    provider = built("ondo", CHAIN)
    for second, ok in ((b"0.500", True), (b"0.6", False)):
        body = ONE.replace(b"]}]}", b"," + row % (HOLDER.encode(), second) + b"]}]}")
        if ok:
            assert len(answered(provider, body).readings) == 1
        else:
            with pytest.raises(Malformed, match="contradicts"):
                answered(provider, body)


@pytest.mark.parametrize(
    "balance", [b'"NaN"', b'"-0.5"', b"0.5", b"null", b'""', b'"0x5"', b'"1_0.5"', b'" 0.5"', b'"."', b'"1e200"']
)
def test_what_is_no_decimal_in_a_string_gives_no_reading(balance):
    with pytest.raises(Malformed):
        answered(built("ondo", CHAIN), ONE.replace(b'"0.50"', balance))


@pytest.mark.parametrize("address", [b"0x13", b"...", b"", WSOL.encode()])
def test_a_holder_that_is_no_address_of_the_chain_gives_no_reading(address):
    with pytest.raises(Malformed, match="EVM"):
        answered(built("ondo", CHAIN), ONE.replace(HOLDER.encode(), address))


ROW = b'{"holderAddress":{"account":"%b"},"balance":"0.50"}' % HOLDER.encode()
OTHER = b'{"holderAddress":{"account":"%b"},"balance":"7"}' % OTHER_HOLDER.encode()
SECOND = ONE[len(b'{"tokens":[') : -2].replace(AAPL.encode(), TSLA.encode())


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (ROW.replace(b'"0.50"', b"null"), True),
        (ROW.replace(b'"0.50"', b"0.5"), True),
        (ROW.replace(b'"0.50"', b'"-0.5"'), True),
        (ROW.replace(b',"balance":"0.50"', b""), True),
        (ROW.replace(HOLDER.encode(), b"0x13"), False),
        (ROW.replace(b'"' + HOLDER.encode() + b'"', b"null"), False),
        (ROW.replace(b'{"account":"' + HOLDER.encode() + b'"}', b"7"), False),
        (b"null", False),
        (b'"..."', False),
        (b"[]", False),
        (b"{}", False),
    ],
)
def test_a_row_that_cannot_be_understood_is_unknown_and_the_others_count(bad, named):
    provider = built("ondo", CHAIN)
    for rows in ((bad, OTHER), (OTHER, bad)):
        found = answered(provider, ONE.replace(ROW, b",".join(rows)))
        assert amounts(found.readings) == {(OTHER_HOLDER, AAPL, "total"): "7"}
        assert (found.listing, found.partial) == (Scope("p", ETHEREUM), True)
        assert found.remark is not None
    told = amounts(answered(provider, ONE.replace(ROW, b",".join((bad, OTHER, ROW)))).readings)
    assert told == {(OTHER_HOLDER, AAPL, "total"): "7"} | ({} if named else {(HOLDER, AAPL, "total"): "0.5"})
    with pytest.raises(Malformed):
        answered(provider, ONE.replace(ROW, bad))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"AAPLon"', b"null"),
        (b'"AAPLon"', b"7"),
        (b'"tokenSymbol":"AAPLon",', b""),
        (b"[" + ROW + b"]", b"null"),
        (b"[" + ROW + b"]", b"{}"),
        (AAPL.encode(), b"0x12"),
        (b'"' + AAPL.encode() + b'"', b"null"),
    ],
)
def test_a_token_that_cannot_be_understood_is_unknown_and_the_others_count(old, new):
    provider, bad = built("ondo", CHAIN), ONE.replace(old, new)
    assert bad != ONE
    found = answered(provider, bad[:-2] + b"," + SECOND + b"]}")
    assert amounts(found.readings) == {(HOLDER, TSLA, "total"): "0.5"}
    assert found.partial
    with pytest.raises(Malformed):
        answered(provider, bad)


def test_a_token_told_well_and_not_is_unknown():
    body = ONE[:-2] + b"," + ONE[len(b'{"tokens":[') : -2].replace(b'"AAPLon"', b"7") + b"," + SECOND + b"]}"
    assert amounts(answered(built("ondo", CHAIN), body).readings) == {(HOLDER, TSLA, "total"): "0.5"}


def test_a_contradiction_beside_a_row_that_cannot_be_understood_gives_no_reading():
    provider = built("ondo", CHAIN)
    for rows in ((b"null", OTHER, OTHER.replace(b'"7"', b'"8"')), (OTHER, b"{}", OTHER.replace(b'"7"', b'"8"'))):
        with pytest.raises(Malformed, match="contradicts"):
            answered(provider, ONE.replace(ROW, b",".join(rows)))


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, golden.F16_MISSING_KEY, RefusedCredential),
        (403, golden.F16_FORBIDDEN, RefusedCredential),
        (403, b"<html>blocked</html>", Temporary),
        (429, golden.F16_THROTTLED, Throttled),
        (400, golden.F16_THROTTLED, Throttled),
        (400, golden.F16_PAUSED, Temporary),
        (400, b'{"code":"INVALID_USER_ADDRESS","message":"no"}', Misconfigured),
        (404, b'{"code":"NEVER_HEARD_OF","message":"no"}', Misconfigured),
        (500, b'{"code":"INTERNAL_ERROR","message":"no"}', Temporary),
        (200, golden.F16_FORBIDDEN, Malformed),
        (200, b"{}", Malformed),
        (200, b'{"tokens":null}', Malformed),
    ],
)
def test_every_known_error_has_its_meaning(status, body, failure):
    with pytest.raises(failure):
        answered(built("ondo", CHAIN), body, status)


def test_a_watch_that_another_ones_listing_covers_costs_no_request():
    watches = [{"account": HOLDER, "token": AAPL}, {"account": HOLDER}, {"token": TSLA}]
    scopes = [target.scope for target in built("ondo", *(CHAIN | one for one in watches)).groups[0].targets]
    assert scopes == [Scope("p", ETHEREUM, HOLDER), Scope("p", ETHEREUM, None, TSLA)]
    whole = built("ondo", *(CHAIN | one for one in watches), CHAIN, {"chain": ETHEREUM})
    assert [target.scope for target in whole.groups[0].targets] == [Scope("p", ETHEREUM)]


def test_defaults_know_the_cache():
    provider = built("ondo", CHAIN)
    assert (provider.settle, provider.cache, provider.limits, provider.ordering) == (
        60.0,
        60.0,
        (Limit(1, 1.0),),
        "none",
    )
    assert built("ondo", CHAIN, settle=5).settle == 5
    assert provider.credentials("k").headers == {"x-api-key": "k"}


@pytest.mark.parametrize(
    ("watch", "what"),
    [
        ({}, "lacks its chain"),
        ({"account": HOLDER}, "lacks its chain"),
        ({"chain": "polygon-137"}, "is not a chain"),
        ({"chain": "eip155:137"}, "Ondo has ethereum-1"),
        ({"chain": "solana-900", "account": HOLDER}, "not a Solana address"),
        ({"chain": "bsc-56", "token": WSOL}, "not an EVM address"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_by_table(watch, what):
    with pytest.raises(SettingsError, match=rf"\[providers\.p\]: .*{what}"):
        built("ondo", watch)
