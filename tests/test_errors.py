"""What is not installed is named, with the command that installs it."""

import pytest

from cfnsr.errors import InputError, require


def test_missing_packages_are_named_with_their_extra() -> None:
    require("serve", "json", "csv")
    message = (
        r"^no-such-package, none is not installed: run pip install 'cfnsr\[serve\]', then the same command$"
    )
    with pytest.raises(InputError, match=message):
        require("serve", "json", "no_such_package", "none")


def test_a_message_is_no_longer_than_people_read() -> None:
    said = str(InputError(f"cell {'x' * 10**6}: expected a number"))
    assert len(said) < 2_000 and said.startswith("cell xxx") and said.endswith("xxx: expected a number")
