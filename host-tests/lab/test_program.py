"""C programs for dom0 and the guests: one static file each, or gcc's own words."""

import pytest
from elftools.elf.elffile import ELFFile

from lab import LabError, program


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_program_needs_no_library_of_the_system_it_runs_in(tmp_path, suite):
    source = tmp_path / "opens.c"
    source.write_text("#include <xenstore.h>\nint main(void) { xs_close(xs_open(0)); return 0; }\n")
    with program.build(source, suite).open("rb") as stream:
        kinds = {segment["p_type"] for segment in ELFFile(stream).iter_segments()}
    assert "PT_LOAD" in kinds
    assert not kinds & {"PT_INTERP", "PT_DYNAMIC"}


def test_a_program_that_does_not_compile_is_an_error_with_the_compiler_s_words(tmp_path):
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(LabError, match=r"(?s)^gcc .*wrong.c.*: exit 1.*.nothing. undeclared"):
        program.build(source, "bookworm")
