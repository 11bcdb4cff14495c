"""A table of the config, whoever's it is."""

import msgspec
import pytest

from watcher.runtime.config_section import SettingsError, section


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
