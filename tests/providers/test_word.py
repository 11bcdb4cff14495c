"""Whose word it is: only an error of the shape that a provider documents says anything of our key, plan or watch."""

import itertools

import pytest

from tests.providers import golden
from tests.providers.tables import answered, built
from tests.providers.test_answers import WATCHES
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled

CONDEMNING = (Exhausted, Misconfigured, RefusedCredential)
STATUSES = (300, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 407, 408, 410, 418, 451, 500, 502, 503, 504, 520)
FOREIGN = {
    "nothing": b"",
    "text": b"default backend - 404",
    "page": b"<!DOCTYPE html><title>Just a moment...</title><p>rate limit, max usage reached, Forbidden</p>",
    "null": b"null",
    "list": b'["error"]',
    "kong": b'{"message":"no Route matched with those values","request_id":"5f3c"}',
    "kong, older": b'{"message":"no Route matched with those values"}',
    "spring": b'{"timestamp":"2026-11-27T14:00:00Z","status":404,"error":"Not Found","path":"/"}',
    "problem": b'{"type":"about:blank","title":"Forbidden","status":403,"detail":"blocked by a rule"}',
    "cloudflare": b'{"success":false,"errors":[{"code":9109,"message":"Invalid access token"}],"result":null}',
    "google": b'{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}',
    "azure": b'{"statusCode":401,"message":"Access denied due to missing subscription key."}',
    "vercel": b'{"error":{"code":"DEPLOYMENT_NOT_FOUND","message":"The deployment could not be found"}}',
    "lower case": b'{"code":"not_found","message":"no such route"}',
    "number": b'{"code":5,"message":"not mine"}',
}
OWN = {
    "jupiter": [
        (golden.F4_FORBIDDEN, {}, 403, RefusedCredential),
        (b'{"code":401,"message":"Unauthorized"}', {}, 401, RefusedCredential),
        (golden.F4_ADDRESS, {}, 400, Misconfigured),
        (golden.F4_FORBIDDEN, {}, 404, Temporary),  # the gateway repeats the status: this is another's
    ],
    "bloxroute": [
        (b'{"code":16,"message":"unauthenticated","details":[]}', {}, 401, RefusedCredential),
        (b'{"code":7,"message":"denied","details":[]}', {}, 403, RefusedCredential),
        (b'{"code":16,"message":"unauthenticated","details":[]}', {}, 200, RefusedCredential),
        (b'{"code":5,"message":"Not Found","details":[]}', {}, 404, Misconfigured),
        (b'{"code":3,"message":"bad address","details":[]}', {}, 400, Misconfigured),
        (b'{"code":2,"message":"pay","details":[]}', {}, 402, Exhausted),
    ],
    "helius": [
        (b'{"jsonrpc":"2.0","error":{"code":-32001,"message":"Unauthorized"},"id":"1"}', {}, 401, RefusedCredential),
        (b'{"jsonrpc":"2.0","error":{"code":-32401,"message":"no key"},"id":null}', {}, 403, RefusedCredential),
        (b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params"},"id":"1"}', {}, 400, Misconfigured),
        (b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params"},"id":"9"}', {}, 400, Malformed),
        (b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid request"},"id":null}', {}, 400, Misconfigured),
        (b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"pay"},"id":"1"}', {}, 402, Exhausted),
        (golden.F12_USED_UP, {}, 429, Exhausted),
        (golden.F12_TEXT, {}, 200, Exhausted),
        (b"Max usage reached.\n", {}, 403, Exhausted),
        (b'{"error":{"code":-32001,"message":"Unauthorized"}}', {}, 401, Temporary),
        (golden.F12_ABSENT.replace(b'"jsonrpc":"2.0",', b""), {}, 400, Temporary),
    ],
    "ondo": [
        (golden.F16_MISSING_KEY, {}, 401, RefusedCredential),
        (golden.F16_FORBIDDEN, {}, 403, RefusedCredential),
        (golden.F16_FORBIDDEN, {}, 404, Temporary),
        (b'{"code":"INVALID_USER_ADDRESS","message":"no","documentation":"x"}', {}, 400, Misconfigured),
        (b'{"code":"RESOURCE_NOT_FOUND","message":"no"}', {}, 404, Misconfigured),
    ],
    "tokenkit": [
        (b'{"detail":"Invalid API key."}', {}, 401, RefusedCredential),
        (b"", {"www-authenticate": 'api-key realm="tokenkit"'}, 401, RefusedCredential),
        (b"", {"www-authenticate": 'Bearer, API-Key realm="tokenkit"'}, 401, RefusedCredential),
        (b"", {"www-authenticate": 'Basic realm="proxy"'}, 401, Temporary),
        (b"", {"www-authenticate": 'Basic realm="api-key"'}, 401, Temporary),
        (b'{"detail":"Not found."}', {}, 404, Misconfigured),
        (b'{"detail":"Forbidden","code":"permission_denied"}', {}, 403, RefusedCredential),
    ],
}


@pytest.mark.parametrize("kind", WATCHES)
@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_what_somebody_else_says_is_temporary_under_any_status(kind, body):
    for status in STATUSES:
        with pytest.raises(Temporary, match="base_url" if status < 500 else "."):
            answered(built(kind, WATCHES[kind]), body, status)


@pytest.mark.parametrize("kind", WATCHES)
@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_a_429_throttles_whoever_says_it_and_a_2xx_without_balances_is_not_understood(kind, body):
    with pytest.raises(Throttled):
        answered(built(kind, WATCHES[kind]), body, 429)
    for status in (200, 201, 202, 204, 206):
        if kind != "tokenkit" or body != FOREIGN["cloudflare"]:  # there `success: false` is the API's own
            with pytest.raises(Malformed):
                answered(built(kind, WATCHES[kind]), body, status)


@pytest.mark.parametrize(
    ("kind", "body", "headers", "status", "failure"), [(kind, *case) for kind, cases in OWN.items() for case in cases]
)
def test_its_own_word_means_what_it_says(kind, body, headers, status, failure):
    with pytest.raises(failure):
        answered(built(kind, WATCHES[kind]), body, status, headers)


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(OWN, 2)))
def test_the_word_of_one_is_not_the_word_of_another(kind, other):
    for body, _, status, failure in OWN[other]:
        if failure in CONDEMNING and body not in (b"", golden.F12_TEXT) and status != 200:
            with pytest.raises((Temporary, Throttled)):
                answered(built(kind, WATCHES[kind]), body, status)


@pytest.mark.parametrize("kind", WATCHES)
def test_a_redirect_says_where_to_look_and_leads_nowhere(kind):
    for status, (body, *_) in itertools.product((301, 302, 303, 307, 308), OWN[kind][:1]):
        with pytest.raises(Temporary, match="base_url"):
            answered(built(kind, WATCHES[kind]), body, status, {"location": "https://elsewhere.example/"})
