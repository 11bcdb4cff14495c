"""A table of the config, whoever's it is."""

from typing import Literal

import msgspec
import pytest

from watcher.runtime.config_section import SettingsError, SettingsErrors, section


def test_an_unknown_key_is_answered_with_the_nearest_right_one():
    class Part(msgspec.Struct, forbid_unknown_fields=True):
        port: int = 1

    assert section({"port": 5}, Part, "relay").port == 5
    with pytest.raises(SettingsError, match=r"unknown key `prot` in \[relay\]: did you mean `port`\?"):
        section({"prot": 5}, Part, "relay")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"side": "belw"}, "hook.side: no such word as 'belw': write one of `below`, `above`: did you mean `below`?"),
        ({"side": ""}, "hook.side: no such word as '': write one of `below`, `above`"),
        ({"side": 3}, "hook.side: expected str"),
        ({"sides": ["above", "abov"]}, "hook.sides[1]: no such word as 'abov': write one of `below`, `above`"),
        ({"kept": "for ever"}, "hook.kept: "),
        ({"until": "6"}, "hook.until: "),
    ],
)
def test_a_word_that_is_none_of_those_is_answered_with_those_that_are(table, says):
    class Part(msgspec.Struct, forbid_unknown_fields=True):
        side: Literal["below", "above"] | None = None
        sides: tuple[Literal["below", "above"], ...] = ()
        kept: float | Literal["forever"] = 1.0
        until: float | Literal["forever"] | None = None

    right = section({"side": "above", "sides": ["below"], "kept": "forever"}, Part, "hook")
    assert (right.side, right.sides, right.kept) == ("above", ("below",), "forever")
    with pytest.raises(SettingsError) as refusal:
        section(table, Part, "hook")
    assert str(refusal.value).startswith(says)
    assert "such word" not in str(refusal.value) or "such word" in says


def test_a_value_of_another_type_is_named_by_its_place():
    class Part(msgspec.Struct, forbid_unknown_fields=True):
        ports: list[int] = []

    with pytest.raises(SettingsError, match=r"^relay\.ports\[1\]: expected int, got str$"):
        section({"ports": [1, "2"]}, Part, "relay")


def test_a_word_that_may_not_stand_there_is_answered_with_those_that_may():
    class Part(msgspec.Struct, forbid_unknown_fields=True):
        events: tuple[Literal["crossed", "changed"], ...] = ()
        level: Literal["low", "high"] | None = None

    with pytest.raises(SettingsErrors) as refused:
        section({"events": ["changed", "cross"], "level": "x"}, Part, "hook")
    assert [str(error) for error in refused.value.errors] == [
        "hook.events[1]: no such word as 'cross': write one of `crossed`, `changed`: did you mean `crossed`?",
        "hook.level: no such word as 'x': write one of `low`, `high`",
    ]
    with pytest.raises(SettingsError, match=r"^hook\.level: expected str | null, got int$"):
        section({"level": 3}, Part, "hook")
