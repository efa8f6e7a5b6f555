"""A failure of the image prints registers and a Python traceback."""

from __future__ import annotations

import re

import pytest

from tools.image import Image

pytestmark = pytest.mark.qemu

REPORT = re.compile(
    r"""^pvdump: trap: (?P<what>.+)
rip (?P<rip>[0-9a-f]{16})  cs 0008  rflags [0-9a-f]{8}  error (?P<error>[0-9a-f]{4})
rsp [0-9a-f]{16}  ss 0010  cr2 (?P<cr2>[0-9a-f]{16})  cr3 [0-9a-f]{16}
rax [0-9a-f]{16}  rbx [0-9a-f]{16}  rcx [0-9a-f]{16}
rdx [0-9a-f]{16}  rsi [0-9a-f]{16}  rdi [0-9a-f]{16}
rbp [0-9a-f]{16}  r8  [0-9a-f]{16}  r9  [0-9a-f]{16}
r10 [0-9a-f]{16}  r11 [0-9a-f]{16}  r12 [0-9a-f]{16}
r13 [0-9a-f]{16}  r14 [0-9a-f]{16}  r15 [0-9a-f]{16}
loaded at 0000000000100000$""",
    re.MULTILINE,
)


def test_page_fault(image: Image, boot) -> None:
    text = boot(image.elf, "-append", "pvdump.fault=page", until="Trap: #PF")
    report = REPORT.search(text)
    assert report
    assert report["what"].startswith("#PF at address 0x0, error code 0x0, rip 0x")
    assert int(report["cr2"], 16) == 0
    assert report["what"].endswith(f"rip 0x{report['rip']}")


def test_undefined_instruction(image: Image, boot) -> None:
    text = boot(image.elf, "-append", "pvdump.fault=ud", until="Trap: #UD")
    report = REPORT.search(text)
    assert report
    assert report["what"].startswith("#UD")


@pytest.mark.parametrize(
    ("kind", "last"),
    [("page", "Trap: #PF"), ("ud", "Trap: #UD"), ("python", "ValueError: pvdump.fault=python")],
)
def test_traceback_names_file_line_and_function(image: Image, boot, kind: str, last: str) -> None:
    text = boot(image.elf, "-append", f"pvdump.fault={kind}", until=last)
    traceback = text[text.index("Traceback (most recent call last):") :]
    assert re.search(r'^  File "pvfw/main.py", line \d+, in main$', traceback, re.MULTILINE)
    assert re.search(r'^  File "pvfw/main.py", line \d+, in fail$', traceback, re.MULTILINE)


def test_trap_runs_finally(doors: Image, boot) -> None:
    text = boot(doors.elf, "-append", "fault=page", until="Trap: #PF")
    assert "\nfinally page\n" in text


def test_text_cannot_be_written_through_the_identity_map(doors: Image, boot) -> None:
    text = boot(doors.elf, "-append", "fault=text", until="Trap: #PF")
    report = REPORT.search(text)
    assert report
    assert report["what"].startswith("#PF at address 0x100100, error code 0x3")


def test_an_nmi_is_noted_and_the_program_goes_on(doors: Image, boot) -> None:
    text = boot(doors.elf, "-append", "fault=nmi", until="end")
    assert re.search(r"^pvdump: NMI at rip 0x[0-9a-f]+, going on$", text, re.MULTILINE)
    assert "pvdump: trap" not in text


def test_second_trap_ends_at_once(doors: Image, boot) -> None:
    text = boot(doors.elf, "-append", "fault=ud", until="pvdump: another trap: #PF")
    assert text.count("pvdump: trap:") == 1
    assert "Traceback" not in text
