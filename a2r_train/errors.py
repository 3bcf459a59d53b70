"""The one exception for mistakes of the user: the command line prints it as one line and exits with status 2."""


class InputError(Exception):
    """The user's input is wrong. The message names the place, what is wrong there, and how to mend it."""
