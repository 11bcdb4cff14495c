"""TokenKit: three endpoints, felts in two forms, times in two formats, partial batches."""

import msgspec
import pytest

from tests.providers import golden
from tests.providers.golden import STARK_ACCOUNT, STARK_TOKEN
from tests.providers.tables import LATER, asked, built, lanes
from tests.providers.tables import answered as told
from watcher.limits.windows import Limit
from watcher.model.addresses import STARKNET
from watcher.model.keys import Scope
from watcher.model.targets import Lane
from watcher.providers.failures import Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.runtime.config_section import SettingsError

PAIR = {"account": STARK_ACCOUNT, "token": STARK_TOKEN}
ACCOUNT = {"account": STARK_ACCOUNT}
AT = 1_769_352_237_000_000
OWN_BUDGETS = [
    {"requests": 30, "per": 60, "endpoint": "balance"},
    {"requests": 10, "per": 60, "endpoint": "balances"},
]


def answered(provider, body, status=200, headers=None, *, lane=0, wall=LATER):
    return told(provider, body, status, headers, lane=lane, wall=wall)


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
    ((group, lane),) = lanes(provider)
    assert (lane.endpoint, lane.batch, len(group.targets)) == ("balances", 20, 45)
    request = asked(provider, interval=90.7)
    assert (request.method, request.path, request.endpoint) == ("POST", "/api/balances/", "balances")
    body = msgspec.json.decode(request.body)
    assert len(body["balances"]) == 20
    assert body["balances"][0] == {"account_address": STARK_ACCOUNT, "token_address": f"0x{0x1000:064x}"}
    assert body["max_age"] == 90
    assert "force_refresh" not in body


def test_single_pairs_have_a_lane_only_with_a_budget_of_their_own():
    provider = built("tokenkit", PAIR, limits=OWN_BUDGETS)
    (group,) = provider.groups
    assert group.lanes == (Lane("balances", 20), Lane("balance", 1))
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
    (group,) = built("tokenkit", PAIR, ACCOUNT, {"account": "0x" + STARK_ACCOUNT[2:].lstrip("0")}).groups
    assert [target.scope for target in group.targets] == [Scope("p", STARKNET, STARK_ACCOUNT)]


def test_padded_and_unpadded_spellings_of_a_pair_are_one_target():
    spelt = {"account": "0x" + STARK_ACCOUNT[2:].lstrip("0"), "token": STARK_TOKEN.upper().replace("X", "x")}
    assert len(built("tokenkit", PAIR, spelt).groups[0].targets) == 1


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
        assert (found.listing, found.partial) == (Scope("p", STARKNET, STARK_ACCOUNT), True)
        assert found.remark is not None


@pytest.mark.parametrize("count", [b"0", b"2", b"null", b'"1"', b"1.0", b"true", b"-1", None])
def test_only_a_count_that_equals_its_rows_makes_a_listing_whole(listing, count):
    body = golden.F17_LISTING.replace(b'"count": 12', b'"count": 1')
    assert not answered(listing, body).partial
    without = b'"count": 1,' if count is None else b'"count": 1'
    found = answered(listing, body.replace(without, b"" if count is None else b'"count": ' + count))
    assert len(found.readings) == 1
    assert found.partial


@pytest.mark.parametrize("links", [b'{"next":"p2"}', b'{"next":7}', b"[]", b'"p2"'])
def test_a_listing_that_goes_on_elsewhere_proves_no_absence(listing, links):
    body = golden.F17_LISTING.replace(b'"count": 12', b'"count": 1, "links": ' + links)
    assert answered(listing, body).partial
    for none in (b"null", b"{}", b'{"next":null,"previous":"p0"}'):
        assert not answered(listing, body.replace(links, none)).partial


def row_of(body):
    """The one row of a documented answer, and what stands before and behind it."""
    start, end = body.index(b"{\n      "), body.rindex(b"\n  ]")
    return body[:start], body[start:end], body[end:]


BALANCES = (b"null", b'"-1"', b'"NaN"', b'"1.5"', b"[]", b"true", b"6543110900255.5", b"1e16")
ROWS = (b"null", b"7", b'"..."', b"[]", b"{}")


@pytest.mark.parametrize("balance", BALANCES)
def test_a_pair_of_a_batch_whose_balance_is_nonsense_is_missing_and_the_others_count(balance):
    provider = built("tokenkit", {"account": STARK_ACCOUNT, "token": "0x1"}, PAIR)
    before, row, behind = row_of(golden.F17_BATCH)
    bad = row.replace(STARK_TOKEN.encode(), b"0x1").replace(b'"6543110900255"', balance)
    for rows in ((row, bad), (bad, row)):
        found = answered(provider, before + b",".join(rows) + behind)
        assert [one.key.token for one in found.readings] == [STARK_TOKEN]
        assert [target.scope.token for target in found.missing] == [f"0x{1:064x}"]
        assert "can be understood" in found.remark


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"2026-01-25T14:43:57+00:00"', b"null"),
        (b"2026-01-25T14:43:57+00:00", b"yesterday"),
        (b'"balance": "6543110900255",', b""),
        (b'"6543110900255"', b"null"),
    ],
)
def test_a_pair_that_one_row_tells_well_and_another_one_not_is_missing(batch, old, new):
    provider = built("tokenkit", {"account": STARK_ACCOUNT, "token": "0x1"}, PAIR)
    before, row, behind = row_of(golden.F17_BATCH)
    other = row.replace(STARK_TOKEN.encode(), b"0x1")
    assert old in row
    found = answered(provider, before + b",".join((row, row.replace(old, new), other)) + behind)
    assert [one.key.token for one in found.readings] == [f"0x{1:064x}"]
    assert [target.scope.token for target in found.missing] == [STARK_TOKEN]
    with pytest.raises(Malformed):
        answered(batch, before + row.replace(old, new) + behind)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_another_shape_hides_no_other_row(batch, listing, row):
    for provider, body in ((batch, golden.F17_BATCH), (listing, golden.F17_LISTING.replace(b"12", b"2"))):
        before, good, behind = row_of(body)
        for rows in ((row, good), (good, row)):
            found = answered(provider, before + b",".join(rows) + behind)
            assert [one.amount for one in found.readings] == ["6543110900255"]
            assert found.partial == (provider is listing)
            assert found.remark is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"6543110900255"', b"null"),
        (b'"6543110900255"', b'"-1"'),
        (b'"decimals": 6', b'"decimals": "6"'),
        (b'"decimals": 6', b'"decimals": 999'),
        (b'"USDC"', b"7"),
        (b'"2026-01-25T14:43:57Z"', b"1769352237"),
        (b'"id": 1234', b'"id": [1]'),
        (b'{ "address": "%s" }' % STARK_ACCOUNT.encode(), b"null"),
        (b"%s" % STARK_ACCOUNT.encode(), b"0x..."),
    ],
)
def test_a_token_of_which_one_row_cannot_be_read_is_unknown_and_no_partial_sum(listing, old, new):
    before, row, behind = row_of(golden.F17_LISTING.replace(b"12,", b"3,"))
    assert old in row
    bad = row.replace(old, new, 1)
    second = row.replace(b"1234", b"1235")
    other = row.replace(b"1234", b"1236").replace(STARK_TOKEN.encode(), b"0x1")
    for rows in ((bad, second, other), (other, second, bad)):
        found = answered(listing, before + b",".join(rows) + behind)
        assert [one.key.token for one in found.readings] == [f"0x{1:064x}"]
        assert (found.listing, found.partial) == (Scope("p", STARKNET, STARK_ACCOUNT), True)
    with pytest.raises(Malformed):
        answered(listing, before + bad + behind)


def test_whole_numbers_with_an_exponent_are_read_exactly(batch):
    for written, amount in (
        (b'"6.5431109E+12"', "6543110900000"),
        (b'"0E-10"', "0"),
        (b"6.5431109e12", "6543110900000"),
    ):
        (reading,) = answered(batch, golden.F17_BATCH.replace(b'"6543110900255"', written)).readings
        assert reading.amount == amount


def test_a_refresh_further_ahead_than_clocks_differ_is_no_reading(batch, listing):
    at = AT / 1e6
    for wall, known in ((at - 299, True), (at - 300, True), (at - 301, False), (at - 30 * 86400, False)):
        for provider, body in ((batch, golden.F17_BATCH), (listing, golden.F17_LISTING)):
            if known:
                assert len(answered(provider, body, wall=wall).readings) == 1
            else:
                with pytest.raises(Malformed, match="in the future"):
                    answered(provider, body, wall=wall)


def test_a_refresh_from_the_future_hides_no_other_pair():
    provider = built("tokenkit", {"account": STARK_ACCOUNT, "token": "0x1"}, PAIR)
    before, row, behind = row_of(golden.F17_BATCH)
    ahead = row.replace(STARK_TOKEN.encode(), b"0x1").replace(b"2026", b"2027")
    found = answered(provider, before + row + b"," + ahead + behind)
    assert [one.key.token for one in found.readings] == [STARK_TOKEN]
    assert "in the future" in found.remark


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
        body = golden.F17_LISTING[:end] + b"," + second + golden.F17_LISTING[end:]
        found = answered(listing, body.replace(b'"count": 12', b'"count": 2'))
        assert [one.amount for one in found.readings] == [amount]
    with pytest.raises(Malformed, match="contradicts"):
        answered(listing, golden.F17_LISTING[:end] + b"," + row.replace(b"654", b"655") + golden.F17_LISTING[end:])


def test_a_cut_listing_may_lack_a_part_of_what_was_a_sum(listing):
    start, end = golden.F17_LISTING.index(b"{\n      "), golden.F17_LISTING.rindex(b"\n  ]")
    row = golden.F17_LISTING[start:end]
    twice = golden.F17_LISTING[:end] + b"," + row.replace(b"1234", b"1235") + golden.F17_LISTING[end:]
    (both,) = answered(listing, twice.replace(b'"count": 12', b'"count": 2')).readings
    assert both.amount == "13086221800510"
    for cut in (golden.F17_LISTING, golden.F17_LISTING.replace(b'"count": 12', b'"count": 2')):
        found = answered(listing, cut)
        assert (list(found.readings), len(found.missing)) == ([], 1)
    (one,) = answered(listing, golden.F17_LISTING.replace(b'"count": 12', b'"count": 1')).readings
    assert one.amount == "6543110900255"


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
