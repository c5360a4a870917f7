"""The error that a user sees as one line."""


class Error(Exception):
    """What failed, on what, and what the user can do, in one line.

    ``exit_code`` is what the command exits with: 1 unless said otherwise, as
    runc's own errors do.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
