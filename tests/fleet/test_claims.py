"""What members tell one another arrives as it was told, or is refused."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.fleet.claims import Assignment, ClaimError, MemberClaim, decode_assignment, decode_claim, encode

WEIGHTS = st.floats(0.0, 1e9)
CLAIMS = st.builds(
    MemberClaim,
    version=st.just(1),
    providers=st.dictionaries(st.text(), WEIGHTS),
    owned=st.lists(st.integers(0, 1000)),
    epoch=st.integers(0, 2**63 - 1),
)
ASSIGNMENTS = st.builds(
    Assignment,
    version=st.just(1),
    epoch=st.integers(0, 2**63 - 1),
    partitions=st.dictionaries(st.integers(0, 1000), st.booleans()),
)


@given(CLAIMS, ASSIGNMENTS)
def test_what_was_told_arrives(claim, assignment):
    assert decode_claim(encode(claim)) == claim
    assert decode_assignment(encode(assignment)) == assignment


def test_the_bytes_are_fixed():
    """Golden: members of another version read them."""
    assert encode(MemberClaim(1, "a", {"x": 0.5}, "00ff", [3], 7)).hex() == (
        "9601a16181a178cb3fe0000000000000a430306666910307"
    )
    assert encode(Assignment(1, 8, "00ff", {3: True}, ["z"])).hex() == "950108a4303066668103c391a17a"


def test_a_field_that_a_later_version_adds_is_passed_over():
    told = [1, "a", {"x": 0.5}, "00ff", [3], 7, "something new"]
    assert decode_claim(msgspec.msgpack.encode(told)).epoch == 7


@given(st.binary(max_size=40))
def test_foreign_bytes_are_refused_in_one_way(data):
    for decode in (decode_claim, decode_assignment):
        with contextlib.suppress(ClaimError):
            assert decode(data).version == 1


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e10])
def test_no_weight_makes_nonsense_of_a_sum(weight):
    with pytest.raises(ClaimError):
        decode_claim(msgspec.msgpack.encode([1, "a", {"x": weight}, "", [], 0]))


def test_a_version_that_means_something_else_is_refused():
    with pytest.raises(ClaimError, match="version 2; this member knows 1"):
        decode_claim(msgspec.msgpack.encode([2, "a", {}, "", [], 0]))
