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
        'hook.events[1]: \'cross\' is none of "crossed", "changed": did you mean `crossed`?',
        'hook.level: \'x\' is none of "low", "high"',
    ]
    with pytest.raises(SettingsError, match=r"^hook\.level: expected str | null, got int$"):
        section({"level": 3}, Part, "hook")
