"""The work of `build.py`: one module a job."""


class Trouble(Exception):
    """Something the person must know or mend: build.py prints the message alone, exit code 1.

    Errors of tools/ and lab/ that are not bugs derive from it. The message says what was wanted,
    what was seen and what to do.
    """
