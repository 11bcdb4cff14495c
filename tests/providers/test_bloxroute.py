"""bloXroute: three spellings of each name, numbers in any clothes, errors inside 200."""

import pytest

from tests.providers import golden
from tests.providers.golden import ACCOUNT, WSOL
from tests.providers.tables import amounts, answered, asked, built
from watcher.limits.windows import Limit
from watcher.providers.failures import Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.runtime.config_section import SettingsError

SRM = "SRMuApVNdxXokk5GT7XD5cUUgXMBCoAz2LHeuAoKWRt"


@pytest.fixture
def provider():
    return built("bloxroute", {"account": ACCOUNT})


def sol(settled, unsettled="0", open_orders="0"):
    parts = zip(("settled", "unsettled", "open_orders"), (settled, unsettled, open_orders), strict=True)
    return {(ACCOUNT, WSOL, kind): amount for kind, amount in parts}


def test_it_asks_with_the_owner(provider):
    request = asked(provider)
    assert (request.method, request.path, request.params) == ("GET", "/api/v2/balance", (("ownerAddress", ACCOUNT),))


def test_camel_case_names_are_read(provider):
    found = answered(provider, golden.F5)
    assert amounts(found.readings) == sol("3.435929722")
    assert {(one.unit, one.decimals, one.symbol, one.order) for one in found.readings} == {
        ("decimal", None, "SOL", None)
    }
    assert found.listing is not None
    assert found.listing.account == ACCOUNT


def test_the_given_page_is_read(provider):
    found = amounts(answered(provider, golden.F6).readings)
    assert found == sol("3.435929722") | {(ACCOUNT, SRM, kind): "0" for kind in ("settled", "unsettled", "open_orders")}


def test_numbers_in_strings_are_read(provider):
    assert amounts(answered(provider, golden.F7).readings) == sol("0")


def test_the_misspelt_names_are_read(provider):
    body = golden.F5.replace(b"tokenMint", b"tokenMin").replace(b"openOrdersAmount", b"openOrderAmount")
    assert amounts(answered(provider, body).readings) == sol("3.435929722")
    assert amounts(answered(provider, body.replace(b'"tokens"', b'".tokens"')).readings) == sol("3.435929722")


def test_tiny_amounts_with_an_exponent_are_exact(provider):
    assert amounts(answered(provider, golden.F9).readings) == sol("0.0000005")


def test_an_amount_never_passes_through_a_float(provider):
    body = golden.F5.replace(b"3.435929722", b"9007199254740993.000000000000000001")
    assert amounts(answered(provider, body).readings) == sol("9007199254740993.000000000000000001")


def test_rows_of_one_mint_are_summed_kind_by_kind(provider):
    row = golden.F5[len(b'{"tokens":[') : -2]
    body = b'{"tokens":[' + row + b"," + row.replace(b'"unsettledAmount":0', b'"unsettledAmount":0.25') + b"]}"
    assert amounts(answered(provider, body).readings) == sol("6.871859444", "0.25")


def kinds(mint, **told):
    return {(ACCOUNT, mint, kind): amount for kind, amount in told.items()}


def test_rows_that_have_no_exact_sum_are_unknown(provider):
    row = golden.F5[len(b'{"tokens":[') : -2]
    body = b'{"tokens":[' + row.replace(b"3.435929722", b"1e90") + b"," + row.replace(b"3.4", b"0.%030d" % 1) + b"]}"
    found = answered(provider, body)
    assert amounts(found.readings) == kinds(WSOL, unsettled="0", open_orders="0")
    assert found.partial
    assert "no exact sum" in found.remark


@pytest.mark.parametrize(
    "amount", [b'"NaN"', b'"Infinity"', b"-1", b"null", b'"much"', b"true", b"1e200", b'"1e200"', b"{}", b'"1_0"']
)
def test_what_is_no_finite_balance_is_unknown_and_never_zero(provider, amount):
    found = answered(provider, golden.F5.replace(b"3.435929722", amount))
    assert amounts(found.readings) == kinds(WSOL, unsettled="0", open_orders="0")
    assert (found.partial, found.listing.account) == (True, ACCOUNT)
    assert "settledAmount" in found.remark


def test_what_is_no_json_gives_no_reading(provider):
    with pytest.raises(Malformed):
        answered(provider, golden.F5.replace(b"3.435929722", b"NaN"))


def test_a_kind_that_is_not_told_is_unknown_and_never_zero(provider):
    found = answered(provider, golden.F5.replace(b',"openOrdersAmount":0', b""))
    assert amounts(found.readings) == kinds(WSOL, settled="3.435929722", unsettled="0")
    assert found.partial


BAD_ROWS = [b"null", b"7", b'"..."', b"[]", b"{}", b'{"tokenMint":null}', b'{"tokenMint":7}', b'{"tokenMint":"So"}']


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_row_that_names_no_mint_is_unknown_and_the_others_count(provider, row):
    for body in (golden.F5[:-2] + b"," + row + b"]}", golden.F5.replace(b"[{", b"[" + row + b",{")):
        found = answered(provider, body)
        assert amounts(found.readings) == sol("3.435929722")
        assert found.partial


def test_a_mint_of_which_one_row_cannot_be_read_is_unknown_and_no_partial_sum(provider):
    row = golden.F5[len(b'{"tokens":[') : -2]
    bad = [
        (row.replace(b"3.435929722", b"null"), kinds(WSOL, unsettled="0", open_orders="0")),
        (row.replace(b'"SOL"', b"7"), {}),
    ]
    other = row.replace(WSOL.encode(), SRM.encode())
    for second, known in bad:
        for rows in ((row, second, other), (other, second, row)):
            found = answered(provider, b'{"tokens":[' + b",".join(rows) + b"]}")
            expected = kinds(SRM, settled="3.435929722", unsettled="0", open_orders="0")
            assert amounts(found.readings) == known | expected
            assert found.partial


def test_a_row_that_tells_no_mint_may_be_a_part_of_what_was_a_sum(provider):
    row = b'{"symbol":"S","tokenMint":"%s","settledAmount":%d,"unsettledAmount":0,"openOrdersAmount":0}'
    first, second = row % (SRM.encode(), 1), row % (SRM.encode(), 2)
    alone = row % (WSOL.encode(), 7)

    def settled(*rows):
        found = answered(provider, b'{"tokens":[' + b",".join(rows) + b"]}")
        return {key[1]: amount for key, amount in amounts(found.readings).items() if key[2] == "settled"}

    assert settled(first, second, alone) == {SRM: "3", WSOL: "7"}
    for unclear in (b"null", b'{"symbol":"S","settledAmount":2}'):
        assert settled(first, unclear, alone) == {WSOL: "7"}
    assert settled(first, alone) == {SRM: "1", WSOL: "7"}, "a whole answer in which one row is no more"
    assert settled(first, b"null", alone) == {SRM: "1", WSOL: "7"}


def test_a_whole_answer_is_not_partial(provider):
    for body in (golden.F5, golden.F6, golden.F7, golden.F9):
        found = answered(provider, body)
        assert (found.partial, found.remark) == (False, None)


def test_two_lists_of_tokens_give_no_reading(provider):
    with pytest.raises(Malformed, match="two lists"):
        answered(provider, golden.F5[:-1] + b',".tokens":[]}')


def test_two_spellings_that_disagree_give_no_reading(provider):
    for old, new in (
        (b'"settledAmount"', b'"settled_amount":1,"settledAmount"'),
        (b'"tokenMint"', b'"token_mint":"' + SRM.encode() + b'","tokenMint"'),
    ):
        with pytest.raises(Malformed, match="more than one"):
            answered(provider, golden.F5.replace(old, new))


def test_two_spellings_that_agree_are_one(provider):
    body = golden.F5.replace(b'"settledAmount"', b'"settled_amount":"3.4359297220","settledAmount"')
    assert amounts(answered(provider, body).readings) == sol("3.435929722")


def test_a_spelling_that_is_null_is_unknown(provider):
    body = golden.F5.replace(b'"settledAmount"', b'"settled_amount":null,"settledAmount"')
    assert amounts(answered(provider, body).readings) == kinds(WSOL, unsettled="0", open_orders="0")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"tokens":null}', golden.F10, b"[]", b"<html></html>", b'{"tokens":["..."]}']
)
def test_an_answer_without_a_list_of_tokens_gives_no_reading(provider, body):
    with pytest.raises(Malformed):
        answered(provider, body)


def test_a_mint_that_is_none_gives_no_reading(provider):
    with pytest.raises(Malformed, match="Solana"):
        answered(provider, golden.F5.replace(b"So111", b"0x111"))


def test_an_empty_list_is_a_complete_listing(provider):
    found = answered(provider, b'{"tokens":[]}')
    assert found.readings == []
    assert found.listing is not None


@pytest.mark.parametrize("status", [200, 429])
def test_too_many_requests_wait_for_the_next_clock_minute_even_inside_200(provider, status):
    with pytest.raises(Throttled, match="rate limit") as throttled:
        answered(provider, golden.F8, status)
    assert throttled.value.retry_after == 33
    with pytest.raises(Throttled) as throttled:
        answered(provider, golden.F8, status, {"date": "Thu, 09 Oct 2025 08:53:50 GMT"})
    assert throttled.value.retry_after == 10  # by its own clock


@pytest.mark.parametrize(
    ("code", "failure"),
    [(16, RefusedCredential), (7, RefusedCredential), (3, Misconfigured), (14, Temporary), (2, Temporary)],
)
def test_an_error_inside_200_means_what_its_code_says(provider, code, failure):
    with pytest.raises(failure, match="because"):
        answered(provider, b'{"code":%d,"message":"because","details":[]}' % code)


def test_an_error_beside_tokens_gives_no_reading(provider):
    with pytest.raises(Temporary):
        answered(provider, golden.F5[:-1] + b',"code":13,"message":"torn","details":[]}')


@pytest.mark.parametrize(
    ("status", "failure"),
    [(401, Temporary), (404, Temporary), (503, Temporary), (302, Temporary), (429, Throttled), (204, Malformed)],
)
def test_a_status_other_than_200_gives_no_reading_even_with_a_good_body(provider, status, failure):
    for body in (golden.F5, b"", b"<html>"):
        with pytest.raises(failure):
            answered(provider, body, status)


def test_a_call_costs_five_credits_until_the_plan_says_otherwise(provider):
    assert (provider.cost, provider.limits) == (5.0, (Limit(60, 60.0),))
    assert built("bloxroute", {"account": ACCOUNT}, cost=1).cost == 1


def test_the_key_goes_as_it_is_into_the_authorization_header(provider):
    assert provider.credentials("YWJj").headers == {"authorization": "YWJj"}


def test_without_a_key_the_table_is_refused():
    with pytest.raises(SettingsError, match="api_key_env"):
        built("bloxroute", {"account": ACCOUNT}, keyed=False)
