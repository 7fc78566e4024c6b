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
