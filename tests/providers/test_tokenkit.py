"""TokenKit: three endpoints, felts in two forms, times in two formats, partial batches."""

import msgspec
import pytest

from tests.providers import golden
from tests.providers.golden import STARK_ACCOUNT, STARK_TOKEN
from tests.providers.tables import answered, asked, built
from watcher.addresses import STARKNET
from watcher.events import Scope
from watcher.providers.failures import Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.provider import Limit, SettingsError

PAIR = {"account": STARK_ACCOUNT, "token": STARK_TOKEN}
ACCOUNT = {"account": STARK_ACCOUNT}
AT = 1_769_352_237_000_000
OWN_BUDGETS = [
    {"requests": 30, "per": 60, "endpoint": "balance"},
    {"requests": 10, "per": 60, "endpoint": "balances"},
]


def pairs(count):
    return [{"account": STARK_ACCOUNT, "token": hex(0x1000 + number)} for number in range(count)]


@pytest.fixture
def batch():
    return built("tokenkit", PAIR)


@pytest.fixture
def listing():
    return built("tokenkit", ACCOUNT)


def test_twenty_pairs_go_into_one_request():
    provider = built("tokenkit", *pairs(45))
    (lane,) = provider.lanes
    assert (lane.endpoint, lane.batch, len(lane.targets)) == ("balances", 20, 45)
    request = asked(provider, interval=90.7)
    assert (request.method, request.path, request.endpoint) == ("POST", "/api/balances/", "balances")
    body = msgspec.json.decode(request.body)
    assert len(body["balances"]) == 20
    assert body["balances"][0] == {"account_address": STARK_ACCOUNT, "token_address": f"0x{0x1000:064x}"}
    assert body["max_age"] == 90
    assert "force_refresh" not in body


def test_single_pairs_have_a_lane_only_with_a_budget_of_their_own():
    provider = built("tokenkit", PAIR, limits=OWN_BUDGETS)
    batches, singles = provider.lanes
    assert singles.endpoint == "balance"
    assert singles.batch == 1
    assert singles.targets is batches.targets
    request = asked(provider, lane=1, interval=20)
    assert (request.method, request.path) == ("GET", "/api/balance/")
    assert dict(request.params) == {"account_address": STARK_ACCOUNT, "token_address": STARK_TOKEN, "max_age": "20"}


def test_an_account_is_listed_in_one_request(listing):
    request = asked(listing, interval=7)
    assert (request.method, request.path, request.endpoint) == ("GET", "/api/account-balances/", "account-balances")
    assert dict(request.params) == {"account_address": STARK_ACCOUNT, "max_age": "7"}


def test_what_the_settings_say_of_freshness_is_passed_on():
    provider = built("tokenkit", ACCOUNT, max_age=300, force_refresh=True)
    params = dict(asked(provider).params)
    assert (params["max_age"], params["force_refresh"]) == ("300", "true")


def test_a_pair_whose_account_is_listed_anyway_costs_no_request():
    (lane,) = built("tokenkit", PAIR, ACCOUNT, {"account": "0x" + STARK_ACCOUNT[2:].lstrip("0")}).lanes
    assert [target.scope for target in lane.targets] == [Scope("p", STARKNET, STARK_ACCOUNT)]


def test_padded_and_unpadded_spellings_of_a_pair_are_one_target():
    spelt = {"account": "0x" + STARK_ACCOUNT[2:].lstrip("0"), "token": STARK_TOKEN.upper().replace("X", "x")}
    assert len(built("tokenkit", PAIR, spelt).lanes[0].targets) == 1


def test_the_documented_batch_is_read(batch):
    found = answered(batch, golden.F17_BATCH)
    (reading,) = found.readings
    assert (reading.key.account, reading.key.token) == (STARK_ACCOUNT, STARK_TOKEN)
    assert (reading.amount, reading.unit, reading.decimals) == ("6543110900255", "base", None)
    assert (reading.order, reading.slot, reading.as_of) == (AT, None, "2026-01-25T14:43:57.000000Z")
    assert (found.listing, found.missing) == (None, ())


def test_the_documented_single_pair_is_read_the_same(batch):
    single = built("tokenkit", PAIR, limits=OWN_BUDGETS)
    assert answered(single, golden.F17_SINGLE, lane=1).readings == answered(batch, golden.F17_BATCH).readings


def test_the_documented_listing_is_read_with_the_other_time_format(listing):
    found = answered(listing, golden.F17_LISTING.replace(b'"count": 12', b'"count": 1'))
    (reading,) = found.readings
    assert (reading.symbol, reading.decimals, reading.amount, reading.order) == ("USDC", 6, "6543110900255", AT)
    assert found.listing == Scope("p", STARKNET, STARK_ACCOUNT)


def test_a_listing_that_counts_more_rows_than_it_holds_speaks_for_no_absent_one(listing):
    for body in (
        golden.F17_LISTING,
        golden.F17_LISTING.replace(b'"count": 12', b'"count": 1, "links": {"next": "p2"}'),
    ):
        found = answered(listing, body)
        assert len(found.readings) == 1
        assert found.listing is None


def test_elided_addresses_of_the_page_are_no_addresses(batch, listing):
    for provider, body in ((batch, golden.F17_BATCH_PAGE), (listing, golden.F17_LISTING_PAGE)):
        with pytest.raises(Malformed, match="Starknet"):
            answered(provider, body)


def test_felts_without_padding_in_an_answer_are_the_pair_that_was_asked(batch):
    body = golden.F17_BATCH.replace(b"0x00000005dd3d", b"0x5DD3D")
    assert answered(batch, body).readings[0].key.account == STARK_ACCOUNT


def test_pairs_that_a_batch_does_not_name_are_unobserved_and_never_zero():
    provider = built("tokenkit", {"account": STARK_ACCOUNT, "token": "0x1"}, PAIR)
    found = answered(provider, golden.F18)
    assert [one.key.token for one in found.readings] == [STARK_TOKEN]
    assert [target.scope.token for target in found.missing] == [f"0x{1:064x}"]
    assert found.remark is not None
    assert "chain fetch failed" in found.remark


@pytest.mark.parametrize(
    "body",
    [
        golden.F17_BATCH.replace(b"true", b"false"),
        b'{"success":true,"data":[],"errors":["all failed"]}',
        b'{"success":false,"errors":{"detail":"x"}}',
        b'{"success":true,"data":null,"errors":null}',
    ],
)
def test_a_batch_in_which_nothing_was_read_is_a_failure(batch, body):
    with pytest.raises(Temporary):
        answered(batch, body)


def test_a_single_pair_with_errors_gives_no_reading():
    single = built("tokenkit", PAIR, limits=OWN_BUDGETS)
    for body in (golden.F17_SINGLE.replace(b"true", b"false"), b'{"success":true,"data":null}'):
        with pytest.raises(Temporary):
            answered(single, body, lane=1)


def test_an_empty_listing_means_not_indexed_and_says_nothing_of_balances(listing):
    found = answered(listing, b'{"success":true,"count":0,"data":[]}')
    assert (found.readings, found.listing) == ([], None)
    assert [target.scope.account for target in found.missing] == [STARK_ACCOUNT]


def test_zero_rows_are_balances_of_zero(listing):
    body = golden.F17_LISTING.replace(b'"count": 12', b'"count": 1').replace(b'"6543110900255"', b'"0"')
    assert [one.amount for one in answered(listing, body).readings] == ["0"]


def test_rows_of_one_token_are_summed_and_the_same_row_twice_is_one(listing):
    start, end = golden.F17_LISTING.index(b"{\n      "), golden.F17_LISTING.rindex(b"\n  ]")
    row = golden.F17_LISTING[start:end]
    for second, amount in ((row.replace(b"1234", b"1235"), "13086221800510"), (row, "6543110900255")):
        found = answered(listing, golden.F17_LISTING[:end] + b"," + second + golden.F17_LISTING[end:])
        assert [one.amount for one in found.readings] == [amount]
    with pytest.raises(Malformed, match="contradicts"):
        answered(listing, golden.F17_LISTING[:end] + b"," + row.replace(b"654", b"655") + golden.F17_LISTING[end:])


def test_a_pair_that_was_not_asked_for_gives_no_reading(batch, listing):
    with pytest.raises(Malformed, match="did not ask"):
        answered(batch, golden.F17_BATCH.replace(b"0x053c", b"0x063c"))
    with pytest.raises(Malformed, match="did not ask"):
        answered(listing, golden.F17_LISTING.replace(b"0x0000", b"0x0001"))


def test_a_pair_told_twice_and_differently_gives_no_reading(batch):
    start, end = golden.F17_BATCH.index(b"{\n      "), golden.F17_BATCH.index(b"\n  ]")
    row = golden.F17_BATCH[start:end]
    assert len(answered(batch, golden.F17_BATCH[:end] + b"," + row + golden.F17_BATCH[end:]).readings) == 1
    with pytest.raises(Malformed, match="contradicts"):
        answered(batch, golden.F17_BATCH[:end] + b"," + row.replace(b"654", b"655") + golden.F17_BATCH[end:])


@pytest.mark.parametrize(
    "time",
    [b"2026-01-25T14:43:57", b"yesterday", b"", b"1769352237", b"1901-01-01T00:00:00Z", b"0001-01-01T00:00:00+10:00"],
)
def test_a_time_that_names_no_instant_gives_no_reading(batch, time):
    with pytest.raises(Malformed):
        answered(batch, golden.F17_BATCH.replace(b"2026-01-25T14:43:57+00:00", time))


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, b'{"detail":"Invalid API key"}', RefusedCredential),
        (403, b'{"detail":"no"}', RefusedCredential),
        (400, b'{"detail":"malformed"}', Misconfigured),
        (404, b"<html>", Temporary),
        (500, b"", Temporary),
        (301, b"", Temporary),
    ],
)
def test_every_status_has_its_meaning(batch, status, body, failure):
    with pytest.raises(failure):
        answered(batch, body, status)


@pytest.mark.parametrize(
    ("body", "headers", "wait"),
    [
        (golden.F19, {}, 86),
        (golden.F19, {"retry-after": "5"}, 5),
        (b'{"detail":"IP blocked after too many invalid keys"}', {}, 300),
        (b'{"detail":"hourly cap"}', {}, 300),
        (b"", {}, 60),
    ],
)
def test_a_429_waits_as_long_as_it_says_in_whatever_way(batch, body, headers, wait):
    with pytest.raises(Throttled) as throttled:
        answered(batch, body, 429, headers)
    assert throttled.value.retry_after == wait


def test_the_default_limit_is_over_all_endpoints(batch):
    assert batch.limits == (Limit(1, 10.0),)
    assert (batch.ordering, batch.settle) == ("weak", 30.0)
    assert batch.credentials("k").headers == {"api-key": "k"}


def test_an_endpoint_that_no_given_limit_covers_keeps_its_default():
    provider = built("tokenkit", PAIR, {"account": "0x7"}, limits=OWN_BUDGETS)
    assert provider.limits[2:] == (Limit(1, 10.0, "account-balances"),)
    everything = built("tokenkit", PAIR, {"account": "0x7"}, limits=[{"requests": 500, "per": 3600}])
    assert everything.limits == (Limit(500, 3600.0),)


@pytest.mark.parametrize(
    ("watch", "settings", "what"),
    [
        ({}, {}, "lacks its account"),
        ({"token": STARK_TOKEN}, {}, "lacks its account"),
        ({"account": "0xzz"}, {}, "not a Starknet address"),
        ({"account": STARK_ACCOUNT, "token": golden.WSOL}, {}, "not a Starknet address"),
        (PAIR | {"chain": "eip155:1"}, {}, "leave `chain` out"),
        (PAIR, {"limits": [{"requests": 1, "per": 1, "endpoint": "portfolio"}]}, "account-balances"),
    ],
)
def test_a_table_that_cannot_be_is_refused(watch, settings, what):
    with pytest.raises(SettingsError, match=rf"\[providers\.p\]: .*{what}"):
        built("tokenkit", watch, **settings)
