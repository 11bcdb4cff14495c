"""Helius: absence that is no failure, errors of any status, codes that mean two things."""

import msgspec
import pytest

from tests.providers import golden
from tests.providers.golden import ACCOUNT, TOKEN_ACCOUNT, USDC, WSOL
from tests.providers.tables import NOW, answered, asked, built, carrying, lanes
from watcher.limits.windows import Limit
from watcher.model.associated_accounts import SPL_PROGRAM
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.protocol import Response
from watcher.runtime.config_section import SettingsError

WATCH = {"account": TOKEN_ACCOUNT, "token": USDC}
OTHER = "BGocb4GEpbTFm8UFV2VsDSaBXHELPfAXrvd4vtt8QWrA"


@pytest.fixture
def provider():
    return built("helius", WATCH)


@pytest.fixture
def several():
    return built("helius", WATCH, {"account": OTHER}, method="getMultipleAccounts")


def test_it_asks_for_one_account_at_the_configured_commitment(provider):
    request = asked(provider)
    assert (request.method, request.path) == ("POST", "/")
    assert msgspec.json.decode(request.body) == {
        "jsonrpc": "2.0",
        "id": request.id,
        "method": "getTokenAccountBalance",
        "params": [TOKEN_ACCOUNT, {"commitment": "confirmed"}],
    }
    finalized = built("helius", WATCH, commitment="finalized")
    assert b'"commitment":"finalized"' in asked(finalized).body


def test_the_given_page_is_read(provider):
    (reading,) = answered(provider, golden.F11).readings
    assert (reading.amount, reading.decimals, reading.unit) == ("9864", 2, "base")
    assert (reading.order, reading.slot) == (1114, 1114)
    assert (reading.key.account, reading.key.token) == (TOKEN_ACCOUNT, USDC)
    (larger,) = answered(provider, golden.F11_LARGE).readings
    assert (larger.amount, larger.decimals, larger.slot) == ("500000000", 9, 183457201)


def test_without_a_named_mint_the_token_is_unknown():
    (reading,) = answered(built("helius", {"account": TOKEN_ACCOUNT}), golden.F11).readings
    assert reading.key.token == "unknown"


@pytest.mark.parametrize("status", [200, 400])
def test_an_account_that_is_not_found_is_absent_and_no_failure(provider, status):
    found = answered(provider, golden.F12_ABSENT, status)
    (reading,) = found.readings
    assert (reading.amount, reading.slot) == (None, None)
    assert found.listing is None


def test_a_null_value_is_absent_as_of_its_slot(provider):
    body = golden.F11.replace(golden.F11[golden.F11.index(b'{"amount"') : -2], b"null")
    (reading,) = answered(provider, body).readings
    assert (reading.amount, reading.slot) == (None, 1114)


@pytest.mark.parametrize("status", [429, 500, 403])
def test_absence_with_any_other_status_says_nothing(provider, status):
    with pytest.raises((Throttled, Temporary, RefusedCredential)):
        answered(provider, golden.F12_ABSENT, status)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("body", [golden.F12_NO_TOKEN, golden.F12_NO_TOKEN_OLD])
def test_an_account_of_another_sort_is_a_mistake_in_the_watch(provider, body, status):
    with pytest.raises(Misconfigured, match=TOKEN_ACCOUNT):
        answered(provider, body, status)


@pytest.mark.parametrize("body", [golden.F12_MIN_SLOT, golden.F12_BEHIND])
def test_a_lagging_node_is_asked_again_soon(provider, body):
    with pytest.raises(Temporary):
        answered(provider, body)


@pytest.mark.parametrize("status", [200, 429])
def test_the_same_code_can_mean_too_many_requests(provider, status):
    with pytest.raises(Throttled):
        answered(provider, golden.F12_TOO_MANY, status)


@pytest.mark.parametrize(
    ("body", "status"),
    [(golden.F12_USED_UP, 429), (golden.F12_USED_UP, 200), (golden.F12_TEXT, 200), (golden.F12_TEXT, 429)],
)
def test_used_up_credits_are_no_throttling(provider, body, status):
    with pytest.raises(Exhausted, match="max usage reached"):
        answered(provider, body, status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"Too many requests", 200),
        (b"rate limited", 429),
        (b"", 429),
        (golden.F12_USED_UP.replace(b"max usage reached", b"rate limited"), 200),
    ],
)
def test_throttling_in_plain_text_is_throttling(provider, body, status):
    with pytest.raises(Throttled) as throttled:
        answered(provider, body, status, {"retry-after": "3"})
    assert throttled.value.retry_after == 3


def test_a_forwarded_reset_is_taken_where_there_is_no_retry_after(provider):
    with pytest.raises(Throttled) as throttled:
        answered(provider, golden.F12_TOO_MANY, 429, {"x-ratelimit-reset": str(NOW + 2)})
    assert throttled.value.retry_after == 2


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        (-32001, 401, RefusedCredential),
        (-32001, 200, RefusedCredential),
        (-32602, 400, Misconfigured),
        (-32601, 200, Misconfigured),
        (-32603, 500, Temporary),
        (-32002, 503, Temporary),
        (-32003, 504, Temporary),
        (-32603, 200, Temporary),
    ],
)
def test_every_documented_error_has_its_meaning(provider, code, status, failure):
    with pytest.raises(failure):
        answered(provider, b'{"jsonrpc":"2.0","error":{"code":%d,"message":"why"},"id":"1"}' % code, status)


@pytest.mark.parametrize("error", [b'"unauthorized"', b'{"message":"no code"}', b"null", b"7"])
def test_an_error_of_an_undocumented_shape_gives_no_reading(provider, error):
    with pytest.raises((Temporary, Malformed)):
        answered(provider, b'{"jsonrpc":"2.0","error":' + error + b',"id":"1"}')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":"1"', b'"id":"2"'),
        (b'"id":"1"', b'"id":1'),
        (b'"id":"1"', b'"id":null'),
        (b'"2.0"', b'"1.0"'),
        (b'"result"', b'"error":{"code":1,"message":"torn"},"result"'),
        (b'"9864"', b'"-9864"'),
        (b'"9864"', b'"98.64"'),
        (b'"decimals":2', b'"decimals":-2'),
        (b'"decimals":2', b'"decimals":2e40'),
        (b"1114", b"-1"),
        (b"1114", b'"1114"'),
    ],
)
def test_an_answer_to_something_else_and_nonsense_give_no_reading(provider, old, new):
    assert old in golden.F11
    with pytest.raises(Malformed):
        answered(provider, golden.F11.replace(old, new))


def test_no_two_requests_share_an_id_whoever_sends_them():
    tables = [built("helius", WATCH) for _ in range(3)] + [built("helius", WATCH, method="getMultipleAccounts")]
    assert len({asked(provider).id for provider in tables for _ in range(100)}) == 400


def test_the_answer_to_another_request_gives_no_reading(provider, several):
    for one, good, absent in ((provider, golden.F11, golden.F12_ABSENT), (several, golden.F13, golden.F13)):
        first, second = asked(one), asked(one)
        for body in (good, absent):
            with pytest.raises((Malformed, Misconfigured)):
                one.read(first, Response(200, carrying(second, body), NOW))
        assert one.read(second, Response(200, carrying(second, good), NOW)).readings


def test_an_absence_with_another_id_says_nothing_of_our_account(provider):
    with pytest.raises(Misconfigured):
        answered(provider, golden.F12_ABSENT.replace(b'"1"', b"null"))


def test_a_good_body_with_a_bad_status_gives_no_reading(provider):
    with pytest.raises(Temporary):
        answered(provider, golden.F11, 500)


def test_up_to_a_hundred_accounts_go_into_one_call_when_asked_to(several):
    assert [lane.batch for _, lane in lanes(several)] == [100]
    assert msgspec.json.decode(asked(several).body)["params"] == [
        [TOKEN_ACCOUNT, OTHER],
        {"commitment": "confirmed", "encoding": "jsonParsed"},
    ]


def test_several_accounts_share_one_slot_and_null_is_absent(several):
    absent, held = answered(several, golden.F13).readings
    assert (absent.key.account, absent.amount, absent.slot) == (TOKEN_ACCOUNT, None, 341197933)
    assert (held.key.account, held.key.token, held.amount) == (OTHER, "unknown", "420000000000000")
    assert (held.decimals, held.slot) == (6, 341197933)


def test_an_account_that_was_not_parsed_is_unknown_and_the_others_are_fine(several):
    for data in (b'["AAAA","base64"]', b'""', b'{"program":"stake","parsed":{"type":"account","info":{}}}'):
        start, end = golden.F13.index(b'{"program"'), golden.F13.index(b',"executable"')
        found = answered(several, golden.F13[:start] + data + golden.F13[end:])
        assert [one.key.account for one in found.readings] == [TOKEN_ACCOUNT]
        assert [one.scope.account for one in found.missing] == [OTHER]
        assert "was not parsed" in found.remark


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"420000000000000"', b"null"),
        (b'"420000000000000"', b'"-1"'),
        (b'"420000000000000"', b'"1.5"'),
        (b'"decimals":6', b'"decimals":"6"'),
        (b'"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"', b'"mint":7'),
        (golden.F13[golden.F13.index(b'{"data"') : -3], b"7"),
        (golden.F13[golden.F13.index(b'{"data"') : -3], b'{"status":"unchanged"}'),
    ],
)
def test_one_account_that_cannot_be_understood_blinds_nobody_else(several, old, new):
    assert old in golden.F13
    found = answered(several, golden.F13.replace(old, new))
    assert [(one.key.account, one.amount) for one in found.readings] == [(TOKEN_ACCOUNT, None)]
    assert [one.scope.account for one in found.missing] == [OTHER]
    assert OTHER in found.remark


def test_when_no_account_can_be_understood_the_answer_is_malformed(several):
    with pytest.raises(Malformed, match="can be understood"):
        answered(several, golden.F13_UNCHANGED.replace(b"[null,", b"[7,"))


@pytest.mark.parametrize("amount", [b"9864", b"98.64e2", b'"9.864E+3"'])
def test_a_whole_number_is_read_exactly_however_it_is_written(provider, amount):
    (reading,) = answered(provider, golden.F11.replace(b'"9864"', amount)).readings
    assert reading.amount == "9864"


SYSTEM = b'{"data":["","base64"],"executable":false,"lamports":890880,"owner":"11111111111111111111111111111111"}'
MINT = b'{"data":{"program":"spl-token","parsed":{"type":"mint","info":{}}},"owner":"%b"}' % SPL_PROGRAM.encode()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("body", [golden.F12_NO_TOKEN, golden.F12_NO_TOKEN_OLD])
def test_a_token_account_that_was_read_and_is_none_any_more_is_closed(provider, body, status):
    answered(provider, golden.F11)
    (reading,) = answered(provider, body, status).readings
    assert (reading.key.account, reading.amount, reading.slot) == (TOKEN_ACCOUNT, None, None)


def test_only_a_balance_proves_that_there_was_a_token_account(provider):
    answered(provider, golden.F12_ABSENT)
    answered(built("helius", WATCH), golden.F11)
    for body in (golden.F11.replace(b'"9864"', b"null"), golden.F12_BEHIND):
        with pytest.raises((Malformed, Temporary)):
            answered(provider, body)
    with pytest.raises(Misconfigured, match="a wallet is none; name the account that holds the token"):
        answered(provider, golden.F12_NO_TOKEN)


def test_a_closed_account_in_another_answer_than_ours_is_not_closed(provider):
    answered(provider, golden.F11)
    with pytest.raises(Malformed):
        answered(provider, golden.F12_NO_TOKEN.replace(b'"1"', b'"2"'))


@pytest.mark.parametrize("other", [SYSTEM, MINT])
def test_one_of_several_accounts_that_belongs_to_another_program_now_is_closed(several, other):
    held = golden.F13[golden.F13.index(b'{"data"') : -3]
    never = answered(several, golden.F13.replace(held, other))
    assert [one.scope.account for one in never.missing] == [OTHER]
    assert "not a token account" in never.remark
    answered(several, golden.F13)
    closed = answered(several, golden.F13.replace(held, other))
    assert [(one.key.account, one.amount, one.slot) for one in closed.readings] == [
        (TOKEN_ACCOUNT, None, 341197933),
        (OTHER, None, 341197933),
    ]
    assert closed.missing == ()


def test_an_account_of_another_mint_than_its_watch_says_is_unknown():
    provider = built("helius", WATCH, {"account": OTHER, "token": WSOL}, method="getMultipleAccounts")
    found = answered(provider, golden.F13)
    assert [one.scope.account for one in found.missing] == [OTHER]


@pytest.mark.parametrize(
    "body", [golden.F13.replace(b"[null,", b"["), golden.F11, golden.F13_OWNER, golden.F13.replace(b"3411", b"-3411")]
)
def test_an_answer_of_another_shape_gives_no_reading(several, body):
    with pytest.raises(Malformed):
        answered(several, body)


def test_not_found_for_several_accounts_at_once_is_no_absence(several):
    with pytest.raises(Misconfigured):
        answered(several, golden.F12_ABSENT)


def test_defaults_are_the_free_plans_and_the_key_is_a_parameter(provider):
    assert provider.limits == (Limit(10, 1.0), Limit(1_000_000, 2_592_000.0))
    assert (provider.groups[0].widest.batch, provider.ordering, provider.settle) == (1, "strict", 30.0)
    assert provider.credentials("k").params == {"api-key": "k"}


def test_watches_of_one_account_are_one_target_and_the_named_mint_wins():
    (target,) = built("helius", {"account": TOKEN_ACCOUNT}, WATCH, {"account": TOKEN_ACCOUNT}).groups[0].targets
    assert target.scope.token == USDC


@pytest.mark.parametrize(
    ("watches", "what"),
    [
        ([{}], "lacks its account"),
        ([{"token": USDC}], "lacks its account"),
        ([{"account": golden.HOLDER}], "not a Solana address"),
        ([{"account": ACCOUNT, "token": golden.HOLDER}], "not a Solana address"),
        ([WATCH, {**WATCH, "token": WSOL}], "two tokens"),
        ([], "nothing to watch"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_by_table(watches, what):
    with pytest.raises(SettingsError, match=rf"\[providers\.p\]: .*{what}"):
        built("helius", *watches)
