"""Which addresses a webhook may be sent to. Pure.

Whoever may write a URL into the config, or answers for a name in it, must not reach by it what only this machine can. So an
address is judged where the connection is made, after every lookup: what a name means at one time says nothing of the next.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

Reach = Literal["public", "private", "never"]
"""`public`: anybody's. `private`: of this machine or its network, where allowed. `never`: no receiver of webhooks has it."""

_PRIVATE_4 = tuple(map(IPv4Network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_NEVER_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this host": Linux connects to itself
            "169.254.0.0/16",  # link-local, and the metadata of most clouds: 169.254.169.254
            "192.0.0.0/24",  # IETF protocols, and metadata of Oracle's cloud
            "192.0.2.0/24",  # documentation, as are 198.51.100.0 and 203.0.113.0
            "192.88.99.0/24",  # relays of 6to4
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
            "100.100.100.200/32",  # metadata of Alibaba's cloud, inside of what carriers use
            "168.63.129.16/32",  # Azure's own, inside of what is public
        ),
    )
)
_PRIVATE_6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
_METADATA_6 = IPv6Network("fd00:ec2::/32")
"""Amazon's and others', inside of what is private."""
_GLOBAL_6 = IPv6Network("2000::/3")
"""All that was ever given to anybody; what is outside is private or nobody's."""
_NEVER_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation, as is 3fff::
            "2002::/16",  # 6to4, which holds an IPv4 address
            "3fff::/20",
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""Holds an IPv4 address in its last 32 bits: how a network without IPv4 reaches one."""


def reach(text: str) -> Reach:
    """Of an address as a lookup gives it. Raises ValueError for what is none."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "never"
        inner = _inner(address)
        if inner is None:
            return _reach_6(address)
        address = inner
    return _reach_4(address)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is meant."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def _reach_4(address: IPv4Address) -> Reach:
    if any(address in network for network in _NEVER_4):
        return "never"
    return "private" if any(address in network for network in _PRIVATE_4) else "public"


def _reach_6(address: IPv6Address) -> Reach:
    if any(address in network for network in _PRIVATE_6):
        return "never" if address in _METADATA_6 else "private"
    return "public" if address in _GLOBAL_6 and not any(address in network for network in _NEVER_6) else "never"


def refusal(address: str, *, allow_private: bool, plain: bool) -> str | None:
    """Why nothing is sent there, in words without the address; None: it may be. `plain`: over http, which anybody on the way
    can read. Raises ValueError for what is no address."""
    match reach(address):
        case "never":
            return "no webhook is sent to link-local, multicast, metadata and reserved addresses"
        case "private" if not allow_private:
            return "it is a private address: write allow_private = true if it is a receiver of yours"
        case "public" if plain:
            return "it is a public address, where http can be read on the way: write https://"
    return None
