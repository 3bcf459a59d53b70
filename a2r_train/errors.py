"""The exceptions that a command shows as one line: of the user's mistakes (exit status 2), and of runs that
went wrong (1).
"""


class InputError(Exception):
    """The user's input is wrong. The message names the place, what is wrong there, and how to mend it."""


class RunError(Exception):
    """A run went wrong, with right input. The message says where, and how to go on."""
