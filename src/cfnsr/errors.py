"""The one kind of error that is the user's to mend, and how it is worded."""


class InputError(ValueError):
    """Bad input: one line that says what was given, what was expected and what to do.

    The command line prints it on stderr and exits with code 2; no traceback without `--debug`.
    """
