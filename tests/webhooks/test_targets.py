"""Which addresses may be sent to: judged by the registries of special addresses, and never by a name."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.webhooks.targets import reach, refusal

PRIVATE = (
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
)
NEVER = (
    *(
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "192.0.0.192",
        "192.0.2.7",
        "198.51.100.7",
        "203.0.113.7",
    ),
    *(
        "198.18.0.1",
        "192.88.99.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
    ),
    *(
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fec0::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2001::1",
        "100::1",
        "3fff::1",
    ),
    *("fd00:ec2::254", "64:ff9b:1::1", "4000::1", "::7f00:1", "2606:4700::1%eth0"),
)
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "192.0.1.1",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "64:ff9b::101:101",
)


@pytest.mark.parametrize(
    ("address", "reached"),
    [(one, "private") for one in PRIVATE] + [(one, "never") for one in NEVER] + [(one, "public") for one in PUBLIC],
)
def test_each_address_is_of_a_reach(address, reached):
    assert reach(address) == reached


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_an_address_within_another_one_is_judged_as_that_one(address):
    assert reach(f"::ffff:{address}") == reach(str(address))
    assert reach(str(ipaddress.IPv6Address("64:ff9b::") + int(address))) == reach(str(address))


@given(st.one_of(st.ip_addresses(), st.ip_addresses(v=4), st.ip_addresses(v=6, network="2000::/3")))
def test_what_the_standard_library_calls_special_is_never_public(address):
    if reach(str(address)) == "public":
        inner = getattr(address, "ipv4_mapped", None) or address
        special = (inner.is_private, inner.is_loopback, inner.is_link_local, inner.is_multicast, inner.is_unspecified)
        assert not any(special) or inner in ipaddress.ip_network("64:ff9b::/96")


@pytest.mark.parametrize(
    ("address", "allow_private", "plain", "says"),
    [
        ("1.1.1.1", False, False, None),
        ("1.1.1.1", True, False, None),
        ("1.1.1.1", True, True, "write https://"),
        ("10.0.0.1", False, False, "allow_private = true"),
        ("10.0.0.1", True, False, None),
        ("10.0.0.1", True, True, None),
        ("169.254.169.254", True, True, "metadata"),
        ("0.0.0.0", True, False, "reserved"),
    ],
)
def test_a_refusal_says_what_to_do(address, allow_private, plain, says):
    words = refusal(address, allow_private=allow_private, plain=plain)
    assert (words is None) if says is None else (says in words and address not in words)
