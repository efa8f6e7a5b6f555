"""Every constant and offset of xenpv.abi against the C headers of Debian's libxen-dev."""

import errno

import pytest

from tools.xenheaders import evaluate, offset, public
from xenpv import abi
from xenpv.xenstore import wire

# The prefix of an offset in xenpv.abi: the struct it is an offset in.
STRUCTS = {
    "XEN_ADD_TO_PHYSMAP_": "xen_add_to_physmap",
    "XEN_HVM_PARAM_": "xen_hvm_param",
    "SCHED_POLL_": "sched_poll",
    "EVTCHN_ALLOC_UNBOUND_": "evtchn_alloc_unbound",
    "EVTCHN_BIND_INTERDOMAIN_": "evtchn_bind_interdomain",
    "EVTCHN_STATUS_": "evtchn_status",
    "GRANT_ENTRY_V1_": "grant_entry_v1",
    "GNTTAB_COPY_": "gnttab_copy",
    "GNTTAB_QUERY_SIZE_": "gnttab_query_size",
    "GNTTAB_GET_VERSION_": "gnttab_get_version",
    "GNTTAB_SET_VERSION_": "gnttab_set_version",
    "GNTTAB_SETUP_TABLE_": "gnttab_setup_table",
    "SHARED_INFO_": "shared_info",
    "XSD_SOCKMSG_": "xsd_sockmsg",
    "XENSTORE_RING_": "xenstore_domain_interface",
    "XENCONS_RING_": "xencons_interface",
    "SRING_": "blkif_sring",
    "BLKIF_REQUEST_": "blkif_request",
    "BLKIF_RESPONSE_": "blkif_response",
    "BLKIF_SEGMENT_": "blkif_request_segment",
}
# Names whose expression does not follow from the name.
EXPRESSIONS = {
    "PAGE_SIZE": "XC_PAGE_SIZE",
    "XENSTORE_RING_SIZE": "XENSTORE_RING_SIZE",
    # The stride of a ring is its union's, which the ring macros hide.
    "SRING_RING": offset("blkif_sring", "ring"),
    "BLKIF_REQUEST_SIZEOF": "sizeof(union blkif_sring_entry)",
    "GRANT_ENTRY_V2_FRAME": "offsetof(union grant_entry_v2, full_page.frame)",
    "GRANT_ENTRY_V2_SIZEOF": "sizeof(union grant_entry_v2)",
}


def expression(name):
    """The C expression that a name of xenpv.abi stands for."""
    if name in EXPRESSIONS:
        return EXPRESSIONS[name]
    if name.startswith("HYPERVISOR_"):
        return f"__{name}"
    for prefix, struct in STRUCTS.items():
        if name.startswith(prefix):
            member = name.removeprefix(prefix)
            return (
                f"sizeof(struct {struct})" if member == "SIZEOF" else offset(struct, member.lower())
            )
    return name


NAMES = public(abi)


@pytest.fixture(scope="module")
def headers():
    return evaluate(sorted({expression(name) for name in NAMES}))


@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_that_of_the_headers(headers, name):
    assert getattr(abi, name) == headers[expression(name)]


def test_xenstore_errors_are_those_of_the_protocol():
    # The last one is oxenstored's own.
    known = evaluate([f"(long long)xsd_errors[{i}].errnum" for i in range(16)])
    assert [errno.errorcode[number] for number in known.values()] == wire.ERRORS[:-1]
    assert wire.ERRORS[-1] == "EQUOTA"
