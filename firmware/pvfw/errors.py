"""Why no dump, or no whole dump, was written; each message is one line for the console."""


class DumpError(Exception):
    """The dump cannot be made."""


class OptionError(DumpError):
    """The command line says something that cannot be done."""


class CoreError(DumpError):
    """What the crashed kernel left about its memory cannot be used."""


class TargetRefused(DumpError):
    """The disk is not one that may be written; nothing on it was changed."""
