"""The exceptions that a command shows as one line: for mistakes of the user (exit status 2), and for failed
runs (1).
"""


class InputError(Exception):
    """The user's input is wrong. The message names the place, what is wrong there, and how to fix it."""


class PromptTooLong(InputError):
    """A prompt over its budget even with its references cut to the shortest. `says` lacks the remedy, which
    is another where the budget is not a recipe's.
    """

    def __init__(self, says: str, remedy: str) -> None:
        super().__init__(f"{says}: {remedy}")
        self.says = says


class RunError(Exception):
    """A run failed although its input is valid. The message says where, and how to continue."""
