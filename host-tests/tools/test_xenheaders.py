"""Xen's headers as the judge of constants."""

import pytest

from tools import cmodule, xenheaders


def test_a_name_that_the_headers_do_not_know_is_an_error():
    with pytest.raises(cmodule.CompileError, match="XENSTORE_NONSENSE"):
        xenheaders.evaluate(["XENSTORE_NONSENSE"])


def test_an_expression_may_be_a_name_a_size_or_an_offset():
    size = "sizeof(struct xsd_sockmsg)"
    tx_id = xenheaders.offset("xsd_sockmsg", "tx_id")
    assert xenheaders.evaluate(["XS_ERROR", size, tx_id]) == {"XS_ERROR": 16, size: 16, tx_id: 8}
