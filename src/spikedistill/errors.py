"""The one error that says: what was given is wrong, and not the program."""


class UserError(ValueError):
    """A value from a user that is refused.

    Its message is one line: what came, what was expected, what to do. The command line prints it without a traceback and ends with
    exit code 2; every other error is a bug, of the library or of what a user wrote, and keeps its traceback.
    """
