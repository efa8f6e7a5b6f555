"""Constants, offsets and structures of xenpv.abi against the C headers of Debian's libxen-dev."""

import errno
import re
import struct

import pytest

from tools.xenheaders import evaluate, offset, public
from xenpv import abi
from xenpv.block import blkif
from xenpv.xenstore import wire

# The prefix of an offset in xenpv.abi: the struct it is an offset in.
STRUCTS = {
    "XEN_ADD_TO_PHYSMAP_": "xen_add_to_physmap",
    "XEN_HVM_PARAM_": "xen_hvm_param",
    "EVTCHN_ALLOC_UNBOUND_": "evtchn_alloc_unbound",
    "EVTCHN_BIND_INTERDOMAIN_": "evtchn_bind_interdomain",
    "GRANT_ENTRY_V1_": "grant_entry_v1",
    "GNTTAB_COPY_": "gnttab_copy",
    "GNTTAB_QUERY_SIZE_": "gnttab_query_size",
    "GNTTAB_GET_VERSION_": "gnttab_get_version",
    "SHARED_INFO_": "shared_info",
    "XSD_SOCKMSG_": "xsd_sockmsg",
    "XENSTORE_RING_": "xenstore_domain_interface",
    "SRING_": "blkif_sring",
    "BLKIF_SEGMENT_": "blkif_request_segment",
}
# Names whose expression does not follow from the name.
EXPRESSIONS = {
    "PAGE_SIZE": "XC_PAGE_SIZE",
    "XENSTORE_RING_SIZE": "XENSTORE_RING_SIZE",
    "SRING_RING": offset("blkif_sring", "ring"),
    "GRANT_ENTRY_V2_FRAME": "offsetof(union grant_entry_v2, full_page.frame)",
    "GRANT_ENTRY_V2_SIZEOF": "sizeof(union grant_entry_v2)",
}


def expression(name):
    """The C expression that a name of xenpv.abi stands for."""
    if name in EXPRESSIONS:
        return EXPRESSIONS[name]
    if name.startswith("HYPERVISOR_"):
        return f"__{name}"
    for prefix, kind in STRUCTS.items():
        if name.startswith(prefix):
            member = name.removeprefix(prefix)
            return f"sizeof(struct {kind})" if member == "SIZEOF" else offset(kind, member.lower())
    return name


NAMES = public(abi)
# The formats for struct.pack: the structure, and the field of each character, "" for padding.
FORMATS = {
    "XEN_ADD_TO_PHYSMAP": ("xen_add_to_physmap", "domid", "size", "space", "idx", "gpfn"),
    "XEN_REMOVE_FROM_PHYSMAP": ("xen_remove_from_physmap", "domid", "", "", "gpfn"),
    "XEN_MEMORY_RESERVATION": (
        *("xen_memory_reservation", "extent_start", "nr_extents", "extent_order", "mem_flags"),
        *("domid", "", ""),
    ),
    "XEN_HVM_PARAM": ("xen_hvm_param", "domid", "", "index", "value"),
    "SCHED_SHUTDOWN": ("sched_shutdown", "reason"),
    "SCHED_POLL": ("sched_poll", "ports", "nr_ports", "", "timeout"),
    "EVTCHN_SEND": ("evtchn_send", "port"),
    "EVTCHN_CLOSE": ("evtchn_close", "port"),
    "EVTCHN_BIND_INTERDOMAIN": (
        *("evtchn_bind_interdomain", "remote_dom", "", "remote_port", "local_port"),
    ),
    "EVTCHN_ALLOC_UNBOUND": ("evtchn_alloc_unbound", "dom", "remote_dom", "port"),
    "GNTTAB_COPY": (
        *("gnttab_copy", "source.u.gmfn", "source.domid", "source.offset", ""),
        *("dest.u.gmfn", "dest.domid", "dest.offset", "", "len", "flags", ""),
    ),
    "GNTTAB_QUERY_SIZE": (
        *("gnttab_query_size", "dom", "", "nr_frames", "max_nr_frames", "status", ""),
    ),
    "GNTTAB_GET_VERSION": ("gnttab_get_version", "dom", "", "version"),
    "GNTTAB_SET_VERSION": ("gnttab_set_version", "version"),
}
# Formats of other modules, by the structure.
ELSEWHERE = {
    "xsd_sockmsg": (wire.HEADER, "type", "req_id", "tx_id", "len"),
    "blkif_response": (blkif.RESPONSE, "id", "operation", "", "status"),
    "blkif_request_segment": (blkif.SEGMENT, "gref", "first_sect", "last_sect", ""),
}
STRUCTURES = {
    **{kind: (getattr(abi, name), *fields) for name, (kind, *fields) in FORMATS.items()},
    **ELSEWHERE,
}


def layout(form, fields):
    """Where each field of a format lies, {field: (offset, size)}, and the whole under ""."""
    kinds = re.findall(r"\d*[a-zA-Z]", form)
    assert (form[0], len(kinds)) == ("<", len(fields))
    found = {"": (0, struct.calcsize(form))}
    for i, (kind, field) in enumerate(zip(kinds, fields, strict=True)):
        if field:
            at = struct.calcsize("<" + "".join(kinds[:i]))
            found[field] = at, struct.calcsize("<" + kind)
    return found


def of_headers(structure, fields):
    """The same as layout(), as the headers have it, and as C expressions."""
    kind = f"struct {structure}"
    sizes = {"": ("0", f"sizeof({kind})")}
    for field in filter(None, fields):
        sizes[field] = f"offsetof({kind}, {field})", f"sizeof((({kind} *)0)->{field})"
    return sizes


@pytest.fixture(scope="module")
def headers():
    return evaluate(sorted({expression(name) for name in NAMES}))


@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_that_of_the_headers(headers, name):
    assert getattr(abi, name) == headers[expression(name)]


def test_every_structure_of_the_module_is_compared():
    formats = {name for name, value in vars(abi).items() if isinstance(value, str)}
    assert {name for name in formats if not name.startswith("__")} == set(FORMATS)


def test_structures_are_those_of_the_headers():
    wanted = {name: of_headers(name, fields) for name, (_, *fields) in STRUCTURES.items()}
    values = evaluate(
        sorted({text for this in wanted.values() for both in this.values() for text in both})
    )
    for name, (form, *fields) in STRUCTURES.items():
        found = {field: (values[at], values[size]) for field, (at, size) in wanted[name].items()}
        ours = layout(form, fields)
        # The headers' own structure may end in padding that the format leaves out.
        if name == "blkif_response":
            found[""] = ours[""]
        assert ours == found, name


def test_block_requests_lie_as_in_the_headers():
    layout = blkif.X86_64
    texts = {
        "sizeof(union blkif_sring_entry)": layout.stride,
        offset("blkif_request", "seg"): layout.segments,
        offset("blkif_request_indirect", "indirect_grefs"): layout.indirect_grefs,
    }
    at = {name: offset("blkif_request", name) for name in ("nr_segments", "id", "sector_number")}
    at["nr_sectors"] = offset("blkif_request_discard", "nr_sectors")
    at["indirect_op"] = offset("blkif_request_indirect", "indirect_op")
    at["indirect_count"] = offset("blkif_request_indirect", "nr_segments")
    values = evaluate([*texts, *at.values()])
    assert {text: values[text] for text in texts} == texts
    place = {name: values[text] for name, text in at.items()}
    entry = layout.request(abi.BLKIF_OP_WRITE, 7, 0x1122, 0x3344)
    assert entry[0] == abi.BLKIF_OP_WRITE
    assert entry[place["nr_segments"]] == 7
    assert struct.unpack_from("<Q", entry, place["id"]) == (0x1122,)
    assert struct.unpack_from("<Q", entry, place["sector_number"]) == (0x3344,)
    entry = layout.indirect(abi.BLKIF_OP_READ, 300, 1, 2)
    assert entry[place["indirect_op"]] == abi.BLKIF_OP_READ
    assert struct.unpack_from("<H", entry, place["indirect_count"]) == (300,)
    entry = layout.discard(1, 2, 0x5566)
    assert struct.unpack_from("<Q", entry, place["nr_sectors"]) == (0x5566,)


def test_xenstore_errors_are_those_of_the_protocol():
    # The last one is oxenstored's own.
    known = evaluate([f"(long long)xsd_errors[{i}].errnum" for i in range(16)])
    assert [errno.errorcode[number] for number in known.values()] == wire.ERRORS[:-1]
    assert wire.ERRORS[-1] == "EQUOTA"
