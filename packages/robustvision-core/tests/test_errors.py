"""Errors of the user stay one line that a person can read."""

from __future__ import annotations

from robustvision_core.errors import LONG, unknown_name


def test_the_nearest_name_and_all_names_of_a_short_list() -> None:
    said = str(unknown_name("loss", "tb", ["tv", "kl"]))
    assert said == "unknown loss 'tb': did you mean 'tv'? known: kl, tv"
    assert str(unknown_name("loss", "zzz", ["tv", "kl"])) == "unknown loss 'zzz': known: kl, tv"


def test_a_long_list_is_printed_only_where_no_name_is_near() -> None:
    known = [f"option-{number}" for number in range(LONG + 1)]
    assert str(unknown_name("option", "option-", known)).endswith("did you mean 'option-9'?")
    assert str(unknown_name("option", "zzz", known)).count("option-") == len(known)
