"""The error of what a user can mend."""


class UserError(ValueError):
    """The input or the surroundings are wrong; the message says what, where, and what to do, in one line.

    Commands print it without a traceback (`videmo_jax/commands.py`). Whatever else is raised is a fault of the program.
    """


class FileError(UserError):
    """A file or folder cannot be reached, read or written."""
