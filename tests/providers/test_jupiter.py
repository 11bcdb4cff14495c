"""Jupiter Ultra: slots, native SOL beside wrapped SOL, several accounts of one mint."""

import pytest

from tests.providers import golden
from tests.providers.golden import ACCOUNT, JUPSOL, WSOL
from tests.providers.tables import NOW, amounts, answered, asked, built
from watcher.limits.windows import Limit
from watcher.model.addresses import SOLANA
from watcher.model.keys import Scope
from watcher.providers.failures import Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.runtime.config_section import SettingsError

WATCH = {"account": ACCOUNT}


@pytest.fixture
def balances():
    return built("jupiter", WATCH)


@pytest.fixture
def holdings():
    return built("jupiter", WATCH, endpoint="holdings")


def test_it_asks_for_the_account_by_path(balances, holdings):
    assert asked(balances).path == f"/ultra/v1/balances/{ACCOUNT}"
    assert asked(holdings).path == f"/ultra/v1/holdings/{ACCOUNT}"
    assert asked(balances).method == "GET"


def test_an_empty_wallet_still_tells_its_native_balance(balances):
    found = answered(balances, golden.F1)
    (native,) = found.readings
    assert (native.key.token, native.amount, native.slot, native.order) == ("native", "0", 324307186, 324307186)
    assert (native.unit, native.decimals, native.symbol) == ("base", None, "SOL")
    assert found.listing == Scope("p", SOLANA, ACCOUNT)


def test_native_and_wrapped_sol_are_two_balances_with_a_slot_each(balances):
    native, wrapped = answered(balances, golden.F2).readings
    assert (native.key.token, native.amount, native.slot) == ("native", "1000000000", 324307186)
    assert (wrapped.key.token, wrapped.amount, wrapped.slot) == (WSOL, "5", 324307185)


def test_unknown_extra_fields_are_passed_over(balances):
    body = golden.F1.replace(b'"amount"', b'"new":{"deep":[1,{}]},"amount"')
    assert answered(balances, body).readings == answered(balances, golden.F1).readings


def test_a_mint_that_stands_twice_in_the_object_gives_no_reading(balances):
    body = golden.F1[:-1] + b"," + golden.F1[1:].replace(b'"0"', b'"7"')
    with pytest.raises(Malformed, match="twice"):
        answered(balances, body)


def test_a_field_of_an_entry_that_stands_twice_gives_no_reading(balances):
    with pytest.raises(Malformed, match="twice"):
        answered(balances, golden.F1.replace(b'"slot":3', b'"slot":9,"slot":3'))


@pytest.mark.parametrize(
    "amount",
    [
        b'"-1"',
        b'"1.5"',
        b'"15e-1"',
        b'"1e78"',
        b'"NaN"',
        b'""',
        b'" 1"',
        b"-5",
        b"1.5",
        b"null",
        b"true",
        b"{}",
        b'"1_0"',
        '"٣"'.encode(),
        b"9007199254740993",
        b"1e16",
    ],
)
def test_what_is_no_whole_number_is_no_amount(balances, amount):
    with pytest.raises(Malformed):
        answered(balances, golden.F1.replace(b'"0"', amount))


@pytest.mark.parametrize(
    ("amount", "exact"),
    [
        (b'"6.5431109E+12"', "6543110900000"),
        (b'"0E-10"', "0"),
        (b'"-0"', "0"),
        (b'"5.0"', "5"),
        (b"6.5e3", "6500"),
        (b"5", "5"),
        (b"9007199254740992", "9007199254740992"),
        (b'"\\u0035\\u0030"', "50"),
        (b'"1e77"', "1" + "0" * 77),
        (b'"007"', "7"),
    ],
)
def test_a_whole_number_is_read_exactly_however_it_is_written(balances, amount, exact):
    (native,) = answered(balances, golden.F1.replace(b'"0"', amount)).readings
    assert native.amount == exact


ENTRY = b'"So11111111111111111111111111111111111111112":{"amount":"5","uiAmount":5e-9,"slot":324307185,"isFrozen":true}'


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (ENTRY.replace(b'"5"', b"null"), "neither a number nor a string"),
        (ENTRY.replace(b'"5"', b'"-5"'), "-5"),
        (ENTRY.replace(b'"slot":324307185', b'"slot":"324307185"'), "not an amount with its slot"),
        (ENTRY.replace(b'"slot":324307185,', b""), "not an amount with its slot"),
        (ENTRY[: ENTRY.index(b":") + 1] + b"null", "not an amount with its slot"),
        (ENTRY[: ENTRY.index(b":") + 1] + b'["5"]', "not an amount with its slot"),
        (ENTRY.replace(b"So1", b"sO0"), "not a Solana address"),
    ],
)
def test_an_entry_that_cannot_be_understood_is_unknown_and_the_others_count(balances, entry, wrong):
    found = answered(balances, golden.F1[:-1] + b"," + entry + b"}")
    assert amounts(found.readings) == {(ACCOUNT, "native", "total"): "0"}
    assert (found.listing, found.partial, found.missing) == (Scope("p", SOLANA, ACCOUNT), True, ())
    assert wrong in found.remark


@pytest.mark.parametrize("told", [b'{"amount":null,"slot":1}', b"null"])
def test_native_sol_that_cannot_be_understood_is_unknown(balances, told):
    found = answered(balances, b'{"SOL":' + told + b"," + ENTRY + b"}")
    assert amounts(found.readings) == {(ACCOUNT, WSOL, "total"): "5"}
    assert found.partial


def test_an_answer_without_native_sol_proves_no_absence(balances, holdings):
    found = answered(balances, b"{" + ENTRY + b"}")
    assert amounts(found.readings) == {(ACCOUNT, WSOL, "total"): "5"}
    assert (found.listing, found.partial) == (Scope("p", SOLANA, ACCOUNT), True)
    without = answered(holdings, golden.F3.replace(b'"amount":"1000000000","uiAmount":1,"uiAmountString":"1",', b"", 1))
    assert amounts(without.readings) == {(ACCOUNT, JUPSOL, "total"): "1000000000"}
    assert (without.listing, without.partial) == (Scope("p", SOLANA, ACCOUNT), True)


def test_an_answer_that_names_nothing_at_all_is_no_answer_about_the_watch(balances, holdings):
    for provider, body in ((balances, b"{}"), (holdings, b'{"tokens":{}}')):
        found = answered(provider, body)
        assert (found.readings, found.listing) == ([], None)
        assert [target.scope.account for target in found.missing] == [ACCOUNT]
        assert "SOL" in found.remark


def test_a_whole_answer_is_not_partial(balances, holdings):
    for provider, body in ((balances, golden.F2), (holdings, golden.F3_TWO), (holdings, golden.F3)):
        found = answered(provider, body)
        assert (found.partial, found.remark, found.missing) == (False, None, ())


TOKENS = b'"tokens":{"So11111111111111111111111111111111111111112":%b,'


@pytest.mark.parametrize(
    "parts",
    [
        b"null",
        b"{}",
        b"[null]",
        b'[{"account":"C","amount":"1","decimals":9},{"account":"D","amount":null,"decimals":9}]',
        b'[{"account":"C","amount":"1","decimals":"9"}]',
        b'[{"account":"C","amount":"-1","decimals":9}]',
    ],
)
def test_a_mint_of_which_a_part_cannot_be_understood_is_unknown_and_no_partial_sum(holdings, parts):
    found = answered(holdings, golden.F3_TWO.replace(b'"tokens":{', TOKENS % parts))
    assert set(amounts(found.readings)) == {(ACCOUNT, "native", "total"), (ACCOUNT, JUPSOL, "total")}
    assert found.partial
    assert WSOL in found.remark


def test_holdings_whose_native_amount_is_nonsense_tell_the_rest(holdings):
    found = answered(holdings, golden.F3.replace(b'"amount":"1000000000"', b'"amount":null', 1))
    assert amounts(found.readings) == {(ACCOUNT, JUPSOL, "total"): "1000000000"}
    assert found.partial


@pytest.mark.parametrize("slot", [b"-1", b'"324307186"', b"null", b"1.5", b"99999999999999999999999"])
def test_a_slot_that_makes_no_sense_gives_no_reading(balances, slot):
    with pytest.raises(Malformed):
        answered(balances, golden.F1.replace(b"324307186", slot))


def test_an_entry_under_what_is_no_mint_gives_no_reading(balances):
    with pytest.raises(Malformed, match="Solana"):
        answered(balances, golden.F1.replace(b"SOL", b"sol"))


def test_holdings_tell_native_sol_and_decimals_but_no_slot(holdings):
    native, token = answered(holdings, golden.F3).readings
    assert (native.key.token, native.amount, native.decimals, native.order) == ("native", "1000000000", None, None)
    assert (token.key.token, token.amount, token.decimals, token.slot) == (JUPSOL, "1000000000", 9, None)


def test_several_token_accounts_of_one_mint_are_one_balance(holdings):
    found = answered(holdings, golden.F3_TWO)
    assert amounts(found.readings)[(ACCOUNT, JUPSOL, "total")] == "18446744074709551615"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"account":"B"', b'"account":"A"'),
        (b'"decimals":9,"programId":"Tokenz', b'"decimals":6,"programId":"Tokenz'),
        (
            b'"tokens":{',
            b'"tokens":{"jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v":[{"account":"C","amount":"1","decimals":9,"isFrozen":true}],',
        ),
    ],
)
def test_holdings_that_contradict_themselves_give_no_reading(holdings, old, new):
    assert old in golden.F3_TWO
    with pytest.raises(Malformed):
        answered(holdings, golden.F3_TWO.replace(old, new))


def test_a_mint_without_token_accounts_is_absent_from_the_holdings(holdings):
    found = answered(holdings, b'{"amount":"1","tokens":{"jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v":[]}}')
    assert [one.key.token for one in found.readings] == ["native"]


def test_a_refused_address_names_the_watch(balances):
    with pytest.raises(Misconfigured, match=f"Invalid address.*{ACCOUNT}"):
        answered(balances, golden.F4_ADDRESS, 400)


def test_a_429_waits_for_the_reset_that_the_gateway_names(balances):
    headers = {"x-ratelimit-remaining": "-1", "x-ratelimit-current": "61", "x-ratelimit-reset": str(int(NOW) + 7)}
    with pytest.raises(Throttled, match="Too many requests") as throttled:
        answered(balances, golden.F4_THROTTLED, 429, headers)
    assert throttled.value.retry_after == 7


def test_a_key_without_access_is_a_refused_credential(balances):
    with pytest.raises(RefusedCredential, match="does not have access"):
        answered(balances, golden.F4_FORBIDDEN, 403)


def test_an_error_of_theirs_is_temporary_whatever_its_body(balances):
    for body in (b'{"error":"oops"}', b"<html>Bad gateway</html>", b""):
        with pytest.raises(Temporary):
            answered(balances, body, 502)


def test_an_error_object_inside_status_200_gives_no_reading(balances, holdings):
    for body in (golden.F4_ADDRESS, golden.F4_THROTTLED):
        for provider in (balances, holdings):
            with pytest.raises(Malformed):
                answered(provider, body)


def test_the_limits_depend_on_whether_there_is_a_key():
    assert built("jupiter", WATCH, keyed=False).limits == (Limit(30, 60.0),)
    assert built("jupiter", WATCH).limits == (Limit(60, 60.0),)
    assert built("jupiter", WATCH, limits=[{"requests": 600, "per": 60}]).limits == (Limit(600, 60.0),)


def test_the_key_goes_into_a_header_and_into_no_repr(balances):
    credentials = balances.credentials("jup_secret")
    assert credentials.headers == {"x-api-key": "jup_secret"}
    assert "jup_secret" not in repr(credentials) + str(credentials)
    assert balances.credentials(None).headers == {}


def test_only_the_endpoint_with_slots_has_an_order(balances, holdings):
    assert (balances.ordering, balances.settle) == ("strict", 30.0)
    assert (holdings.ordering, holdings.settle) == ("none", 30.0)


def test_two_watches_of_one_account_are_one_target():
    assert len(built("jupiter", WATCH, {**WATCH, "chain": SOLANA}).groups[0].targets) == 1


@pytest.mark.parametrize(
    ("watch", "what"),
    [
        ({}, "lacks its account"),
        ({"account": "0x13116e8b4ffc8125b859ec60917fba540e59e55e"}, "not a Solana address"),
        ({"account": ACCOUNT, "token": WSOL}, "leave `token` out"),
        ({"account": ACCOUNT, "chain": "eip155:1"}, "leave `chain` out"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_by_table_in_one_line(watch, what):
    with pytest.raises(SettingsError, match=what) as refused:
        built("jupiter", watch)
    assert str(refused.value).startswith("[providers.p]: ")
    assert "\n" not in str(refused.value)
