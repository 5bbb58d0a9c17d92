"""Checks of options: what passes, and what the errors say."""

from collections.abc import Callable
from typing import Literal

import pytest

from sightline import SightlineError
from sightline._core.checks import check_choice, check_count, check_fraction, check_non_negative, check_positive

Mode = Literal["pass", "fused"]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_non_negative(weight=1.0, reward=-0.5), r"reward is -0.5; expected a number >= 0"),
        (lambda: check_non_negative(weight=float("nan")), "weight is nan"),
        (lambda: check_positive(slope=0), "slope is 0; expected a number > 0"),
        (lambda: check_fraction(beta=1.5), r"beta is 1.5; expected a number in \[0, 1\]"),
        (lambda: check_fraction("(0, 1]", share=0), r"share is 0; expected a number in \(0, 1\]"),
        (lambda: check_fraction("[0, 1)", share=1), r"share is 1; expected a number in \[0, 1\)"),
        (lambda: check_fraction("(0, 1)", share=float("nan")), r"share is nan; expected a number in \(0, 1\)"),
        (lambda: check_count(groups=0), "groups is 0; expected a whole number >= 1"),
        (lambda: check_count(2, groups=1), "groups is 1; expected a whole number >= 2"),
        (lambda: check_count(steps=1.0), "steps is 1.0; expected a whole number"),
        (lambda: check_count(steps=True), "steps is True; expected a whole number"),
        (lambda: check_choice(Mode, mode="both"), "mode is 'both'; expected 'pass' or 'fused'"),
        (lambda: check_choice(("a", None), by="b"), "by is 'b'; expected 'a' or None"),
    ],
)
def test_check_wrong_option_raises_name_value_and_expectation(check: Callable[[], None], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        check()


def test_check_valid_options_pass() -> None:
    check_non_negative(weight=0, reward=2.5)
    check_positive(slope=1e-9)
    check_fraction(beta=0, share=1)
    check_fraction("(0, 1]", share=1)
    check_fraction("[0, 1)", share=0)
    check_count(2, groups=2)
    check_choice(Mode, mode="fused")
