"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(ValueError):
    """Bad input, option or environment; the message says what is wrong and what to type next.

    The command line prints the message without a traceback and exits with 2.
    """
