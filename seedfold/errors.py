"""The one exception that is the user's to mend."""


class UserError(Exception):
    """Bad input or a machine that lacks something.

    The message is one sentence that names the field, the value and the remedy. The command line prints it and exits
    with code 2; nothing that was already recorded is lost.
    """
