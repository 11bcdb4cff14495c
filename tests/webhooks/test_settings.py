"""The `[[webhook]]` tables: every mistake is one line that says what to do, and no secret or address of one is ever shown."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webhooks.samples import key, secret, webhook
from watcher.model.filters import FilterMatcher
from watcher.model.keys import KINDS, Filter
from watcher.runtime.config_section import SettingsError
from watcher.webhooks.settings import MOST, load, parse, unfit_secrets, unfit_url

TABLE = {"url": "https://receiver.example/hook", "secret_env": "WEBHOOK_SECRET"}
HIDDEN = "canary-9c41e0d7"
HIDDEN_URL = f"https://hooks.example/services/{HIDDEN}"


def test_a_table_has_defaults():
    (one,) = parse([TABLE])
    assert (one.title, one.events, one.kinds, one.wanted) == (
        "receiver.example",
        ("crossed", "changed"),
        KINDS,
        Filter(),
    )
    assert not one.allow_private


def test_filters_take_a_text_or_a_list():
    (one,) = parse([TABLE | {"provider": "bank", "tag": ["a", "b"], "kind": "settled", "chain": "ethereum-1"}])
    assert one.wanted == Filter(provider=("bank",), tag=("a", "b"), chain=("ethereum-1",))
    assert one.kinds == {"settled"}
    assert FilterMatcher.of(Filter(chain=one.wanted.chain)).matches(key()), "a chain by the name of the config"


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"url": "x"}, ["write [[webhook]] before each"]),
        ([5], ["`webhook[0]` must be a table"]),
        ([TABLE] * (MOST + 1), [f"{MOST} at most"]),
        ([TABLE, TABLE], ["two are called receiver.example", 'name = "…"']),
        ([TABLE | {"name": "a b"}], ["webhook[0]", "letters, digits"]),
        ([TABLE | {"name": ""}], ["letters, digits"]),
        ([TABLE | {"nmae": "x"}], ["unknown key `nmae`", "did you mean `name`?"]),
        ([{"secret_env": "X"}], ["say where its events go: write url"]),
        ([TABLE | {"url_env": "X"}], ["url and url_env are given: keep one"]),
        ([{"url_env": "X", "secret_env": "Y"}], ['write name = "…"']),
        ([{"url": TABLE["url"]}], ["write secret_env or secret_file"]),
        ([TABLE | {"secret_file": "x"}], ["both given: keep one"]),
        ([TABLE | {"events": []}], ["events is empty", "crossed, changed"]),
        ([TABLE | {"events": ["crosed"]}], ["webhook[0].events"]),
        ([TABLE | {"events": "crossed"}], ["webhook[0].events"]),
        ([TABLE | {"kind": "totl"}], ["no kind 'totl'", "did you mean `total`?"]),
        ([TABLE | {"account": []}], ["account is empty"]),
        ([TABLE | {"chain": "solana"}], ["webhook[0]", "chain = 'solana' is not a chain: write a CAIP-2 id"]),
        ([TABLE | {"label": ""}], ["label is empty"]),
        ([TABLE | {"url": "http://receiver.example/"}], ["http://", "write https://", "allow_private = true"]),
        ([TABLE | {"url": "ftp://receiver.example/"}], ["no address of the web: write https://"]),
        ([TABLE | {"url": "receiver.example"}], ["no address of the web"]),
        ([TABLE | {"url": "https://user:word@receiver.example/"}], ["has a user in it"]),
        ([TABLE | {"url": "https://receiver.example/#part"}], ["has a `#`"]),
        ([TABLE | {"url": "https://receiver.example/a b"}], ["has a space"]),
        ([TABLE | {"url": "https://receiver.example:0/"}], ["no address of the web"]),
        ([TABLE | {"url": "https://127.0.0.1/"}], ["url is refused", "allow_private = true"]),
        ([TABLE | {"url": "https://[::ffff:10.0.0.1]/"}], ["url is refused", "allow_private = true"]),
        ([TABLE | {"url": "http://169.254.169.254/latest", "allow_private": True}], ["url is refused", "metadata"]),
        ([TABLE | {"url": "http://1.1.1.1/", "allow_private": True}], ["url is refused", "write https://"]),
    ],
)
def test_a_mistake_is_told_with_what_to_do(tables, says):
    with pytest.raises(SettingsError) as caught:
        parse(tables)
    assert all(part in str(caught.value) for part in says), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "names WEBHOOK_SECRET, which is not set"),
        ({"WEBHOOK_SECRET": HIDDEN}, "does not begin with whsec_"),
        ({"WEBHOOK_SECRET": f"whsec_{HIDDEN}"}, "no base64"),
        ({"WEBHOOK_SECRET": f"{secret()} {HIDDEN}"}, "holds 2 secrets, of which number 2 does not begin"),
        ({"WEBHOOK_SECRET": " ".join(secret(str(number)) for number in range(6))}, "holds 6 secrets: keep 5"),
    ],
)
def test_a_secret_that_is_none_is_not_shown(environment, says):
    with pytest.raises(SettingsError) as caught:
        load(parse([TABLE])[0], environment)
    assert says in str(caught.value)
    assert str(caught.value).startswith("[[webhook]] receiver.example: secret_env")
    assert HIDDEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_a_secret_is_read_and_not_shown(tmp_path):
    (tmp_path / "url").write_text(f"{HIDDEN_URL}\n")
    table = {"name": "ops", "url_file": str(tmp_path / "url"), "secret_env": "WEBHOOK_SECRET"}
    one = load(parse([table])[0], {"WEBHOOK_SECRET": secret()})
    assert (one.url, one.host) == (HIDDEN_URL, "hooks.example")
    assert HIDDEN not in repr(one)
    (tmp_path / "url").write_text(f"http://hooks.example/{HIDDEN}")
    with pytest.raises(SettingsError, match="begins with http://") as caught:
        load(parse([table])[0], {"WEBHOOK_SECRET": secret()})
    assert HIDDEN not in str(caught.value)


def test_all_mistakes_of_the_secrets_are_told_at_once():
    table = {"name": "ops", "url_env": "NO_URL", "secret_env": "NO_SECRET"}
    with pytest.raises(SettingsError) as caught:
        load(parse([table])[0], {})
    assert [("NO_URL" in str(one), one.where) for one in caught.value.errors] == [
        (True, "webhook.ops"),
        (False, "webhook.ops"),
    ]


def test_the_place_is_kept_under_the_name_and_without_one_under_the_address():
    def note(**table):
        return webhook(**table).settings.note_key

    assert note(name="a") == note(name="a", url="https://other.example/") != note(name="b")
    assert note() == note(events=["changed"]) != note(url="https://other.example/")
    assert note(name="x") != note(url="https://x/"), "a name and an address are never taken for one another"
    assert "/" not in note()


@pytest.mark.parametrize(
    "other",
    [
        {"events": ["changed"]},
        {"url": "https://other.example/hook"},
        {"secrets": secret("two")},
        {"account": "x"},
        {"allow_private": True},
    ],
)
def test_whatever_is_configured_otherwise_is_another_fingerprint(other):
    assert webhook(name="a").fingerprint == webhook(name="a").fingerprint != webhook(name="a", **other).fingerprint


def test_an_address_that_a_variable_holds_is_part_of_the_fingerprint():
    (table,) = parse([{"name": "a", "url_env": "WEBHOOK_URL", "secret_env": "WEBHOOK_SECRET"}])
    one, other = (
        load(table, {"WEBHOOK_SECRET": secret(), "WEBHOOK_URL": f"https://receiver.example/{path}"}).fingerprint
        for path in ("here", "there")
    )
    assert one != other


@given(
    st.one_of(
        st.text(max_size=40),
        st.text(max_size=30).map("https://{}".format),
        st.from_regex(r"https?://[a-z.:\[\]0-9@/#-]{0,20}"),
    )
)
def test_what_is_taken_as_an_address_a_request_can_be_made_of(text):
    if unfit_url(text, allow_private=True) is None:
        assert httpx.Request("POST", httpx.URL(text)).headers["host"]


@given(st.text(max_size=100))
def test_whatever_is_no_secret_is_refused_and_not_raised(text):
    unfit_secrets(text)
