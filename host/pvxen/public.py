"""Constants of Xen's public headers that only Xen's own side needs, with the headers' names.

Used by the embedded Xen; those that drivers need too are in xenpv.abi. host-tests/pvxen/test_abi.py
compares each with Debian's libxen-dev headers. Source: xen/include/public.
"""

# hypercalls (leading underscores dropped) and their operations
VCPUOP_register_vcpu_info = 10
XENVER_get_features = 6
HVMOP_get_mem_type = 15
HVMMEM_ram_rw = 0
HVMMEM_mmio_dm = 2
HVM_NR_PARAMS = 39

# event_channel.h
EVTCHNOP_reset = 10
EVTCHNOP_init_control = 11
EVTCHNOP_expand_array = 12
EVTCHNOP_set_priority = 13
EVTCHN_FIFO_PRIORITY_DEFAULT = 7
EVTCHN_FIFO_PRIORITY_MIN = 15
EVTCHN_FIFO_MAX_QUEUES = 16
EVTCHN_FIFO_PENDING = 31
EVTCHN_FIFO_MASKED = 30
EVTCHN_FIFO_LINKED = 29
EVTCHN_FIFO_BUSY = 28
EVTCHN_FIFO_LINK_BITS = 17
EVTCHN_FIFO_NR_CHANNELS = 1 << 17

# grant_table.h
GNTTABOP_get_status_frames = 9
GTF_sub_page = 256
GNTCOPY_source_gref = 1
GNTCOPY_dest_gref = 2
GNTST_general_error = -1
GNTST_bad_domain = -2
GNTST_bad_gntref = -3
GNTST_permission_denied = -8
GNTST_bad_copy_arg = -10
