"""The standard streams: one line for each thing said."""

import os
import subprocess
import sys

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def logged(code: str) -> list[str]:
    """Run code in a program whose log is as the commands have it. Returns its lines."""
    program = f"import logging\nfrom pvdump import streams\nstreams.log_lines('test')\n{code}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stderr=subprocess.PIPE, text=True)
    return done.stderr.splitlines()


def test_a_logged_name_with_control_characters_stays_in_its_line() -> None:
    lines = logged("logging.error('disk %s failed', 'a\\nb\\x1b[2J')")
    assert lines == [r"pvdump test: disk a\nb\x1b[2J failed"]


def test_a_logged_traceback_has_its_own_lines() -> None:
    lines = logged("try: 1 / 0\nexcept ArithmeticError: logging.exception('a\\nb')")
    assert lines[0] == r"pvdump test: a\nb"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert len(lines) > 2
