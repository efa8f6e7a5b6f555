"""The numbers of the embedded Xen, against the C headers of Debian's libxen-dev."""

import pytest

from pvxen import domain, hypercalls, public
from tools import xenheaders
from tools.xenheaders import evaluate

NAMES = xenheaders.public(public)
FEATURES = ("auto_translated_physmap", "hvm_callback_vector", "hvm_safe_pvclock", "hvm_pirqs")
# The sizes and offsets that its struct formats stand for.
LAYOUTS = {
    "sizeof(struct gnttab_setup_table)": 24,
    "offsetof(struct gnttab_setup_table, nr_frames)": 4,
    "offsetof(struct gnttab_setup_table, status)": 8,
    "offsetof(struct gnttab_setup_table, frame_list)": 16,
    "sizeof(struct xen_hvm_get_mem_type)": 16,
    "offsetof(struct xen_hvm_get_mem_type, mem_type)": 2,
    "offsetof(struct xen_hvm_get_mem_type, pfn)": 8,
    "offsetof(struct evtchn_bind_interdomain, remote_port)": 4,
    "offsetof(struct evtchn_bind_interdomain, local_port)": 8,
    "offsetof(struct evtchn_status, port)": 4,
    "offsetof(struct evtchn_status, status)": 8,
    "offsetof(struct evtchn_status, vcpu)": 12,
    "offsetof(struct evtchn_status, u.interdomain.dom)": 16,
    "offsetof(struct evtchn_status, u.interdomain.port)": 20,
    "sizeof(struct sched_watchdog)": 8,
    "offsetof(struct sched_watchdog, timeout)": 4,
    "sizeof(struct xen_feature_info)": 8,
    "offsetof(struct xen_feature_info, submap)": 4,
    "sizeof(struct vcpu_info)": 64,
    "offsetof(struct vcpu_info, evtchn_pending_sel)": 8,
    "offsetof(struct blkif_request_segment, last_sect)": 5,
    "sizeof(struct evtchn_fifo_control_block)": 72,
    "offsetof(struct evtchn_fifo_control_block, head)": 8,
    "offsetof(struct evtchn_init_control, offset)": 8,
    "offsetof(struct evtchn_init_control, vcpu)": 12,
    "offsetof(struct evtchn_init_control, link_bits)": 16,
    "offsetof(struct evtchn_set_priority, priority)": 4,
    "offsetof(struct vcpu_register_vcpu_info, offset)": 8,
    "offsetof(struct gnttab_get_status_frames, dom)": 4,
    "offsetof(struct gnttab_get_status_frames, status)": 6,
    "offsetof(struct gnttab_get_status_frames, frame_list)": 8,
    "sizeof(struct gnttab_copy)": 40,
    "offsetof(struct gnttab_copy, source.domid)": 8,
    "offsetof(struct gnttab_copy, source.offset)": 10,
    "offsetof(struct gnttab_copy, dest)": 16,
    "offsetof(struct gnttab_copy, len)": 32,
    "offsetof(struct gnttab_copy, flags)": 34,
    "offsetof(struct gnttab_copy, status)": 36,
    "offsetof(union grant_entry_v2, full_page.frame)": 8,
    "offsetof(union grant_entry_v2, sub_page.page_off)": 4,
    "offsetof(union grant_entry_v2, sub_page.length)": 6,
}


def expression(name):
    return f"__{name}" if name.startswith("HYPERVISOR_") else name


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_those_of_the_headers(name):
    assert getattr(public, name) == evaluate([expression(name) for name in NAMES])[expression(name)]


@pytest.mark.parametrize("text", LAYOUTS)
def test_layouts_are_those_of_the_headers(text):
    assert evaluate(list(LAYOUTS))[text] == LAYOUTS[text]


def test_features_are_those_of_an_hvm_guest():
    bits = evaluate([f"XENFEAT_{name}" for name in FEATURES])
    assert sum(1 << bit for bit in bits.values()) == hypercalls.XENFEAT_HVM


def test_reserved_grants_are_those_of_the_headers():
    names = ["GNTTAB_RESERVED_CONSOLE", "GNTTAB_RESERVED_XENSTORE"]
    assert list(evaluate(names).values()) == [domain.GRANT_CONSOLE, domain.GRANT_XENSTORE]
