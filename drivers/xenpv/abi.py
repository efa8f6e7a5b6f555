"""Constants and layouts of Xen's interface, with the names of Xen's public headers.

Used by every driver. A name that stands in a header is kept letter for letter (but for the leading
underscores of __HYPERVISOR_*, which Python would mangle); an offset is named STRUCT_FIELD; a
structure's format for struct.pack is named STRUCT, its fields stand in the line above.
host-tests/xenpv/test_abi.py compares each with Debian's libxen-dev headers.
Source: xen/include/public.
"""

PAGE_SIZE = 4096
DOMID_SELF = 0x7FF0

# xen.h: hypercalls
HYPERVISOR_memory_op = 12
HYPERVISOR_xen_version = 17
HYPERVISOR_grant_table_op = 20
HYPERVISOR_vcpu_op = 24
HYPERVISOR_sched_op = 29
HYPERVISOR_event_channel_op = 32
HYPERVISOR_hvm_op = 34

# memory.h
XENMEM_populate_physmap = 6
XENMEM_add_to_physmap = 7
XENMEM_remove_from_physmap = 15
XENMAPSPACE_shared_info = 0
XENMAPSPACE_grant_table = 1
XENMAPIDX_grant_table_status = 0x80000000
# struct xen_add_to_physmap: domid, size, space, idx, gpfn
XEN_ADD_TO_PHYSMAP = "<HHIQQ"
XEN_REMOVE_FROM_PHYSMAP = "<HHIQ"
XEN_MEMORY_RESERVATION = "<QQIIHHI"

# version.h
XENVER_version = 0

# hvm/hvm_op.h, hvm/params.h
VCPUOP_register_vcpu_time_memory_area = 13
HVMOP_set_param = 0
HVMOP_get_param = 1
HVM_PARAM_CALLBACK_IRQ = 0
HVM_PARAM_CALLBACK_TYPE_VECTOR = 2
HVM_PARAM_STORE_PFN = 1
HVM_PARAM_STORE_EVTCHN = 2
HVM_PARAM_CONSOLE_PFN = 17
HVM_PARAM_CONSOLE_EVTCHN = 18
# struct xen_hvm_param: domid, padding, index, value
XEN_HVM_PARAM = "<HHIQ"
XEN_HVM_PARAM_VALUE = 8

# sched.h
SCHEDOP_yield = 0
SCHEDOP_block = 1
SCHEDOP_shutdown = 2
SCHEDOP_poll = 3
SCHEDOP_watchdog = 6
SHUTDOWN_poweroff = 0
SHUTDOWN_reboot = 1
SHUTDOWN_suspend = 2
SHUTDOWN_crash = 3
SHUTDOWN_watchdog = 4
SHUTDOWN_soft_reset = 5
# struct sched_shutdown: reason
SCHED_SHUTDOWN = "<I"
# struct sched_poll: ports, nr_ports, padding, timeout
SCHED_POLL = "<QIIQ"

# event_channel.h
EVTCHNOP_bind_interdomain = 0
EVTCHNOP_close = 3
EVTCHNOP_send = 4
EVTCHNOP_status = 5
EVTCHNOP_alloc_unbound = 6
EVTCHNOP_unmask = 9
EVTCHNSTAT_closed = 0
EVTCHNSTAT_unbound = 1
EVTCHNSTAT_interdomain = 2
# struct evtchn_send, evtchn_close: port
EVTCHN_SEND = "<I"
EVTCHN_CLOSE = "<I"
# struct evtchn_bind_interdomain: remote_dom, padding, remote_port, local_port
EVTCHN_BIND_INTERDOMAIN = "<HHII"
EVTCHN_BIND_INTERDOMAIN_LOCAL_PORT = 8
# struct evtchn_alloc_unbound: dom, remote_dom, port
EVTCHN_ALLOC_UNBOUND = "<HHI"
EVTCHN_ALLOC_UNBOUND_PORT = 4

# xen.h: struct shared_info
SHARED_INFO_EVTCHN_PENDING = 2048
SHARED_INFO_EVTCHN_MASK = 2560
SHARED_INFO_WC_VERSION = 3072
SHARED_INFO_WC_SEC = 3076
SHARED_INFO_WC_NSEC = 3080
SHARED_INFO_WC_SEC_HI = 3084
EVTCHN_2L_NR_CHANNELS = 4096

# grant_table.h
GNTTABOP_setup_table = 2
GNTTABOP_copy = 5
GNTTABOP_query_size = 6
GNTTABOP_set_version = 8
GNTTABOP_get_version = 10
GNTST_okay = 0
GNTST_eagain = -12
GTF_type_mask = 3
GTF_permit_access = 1
GTF_readonly = 4
GTF_reading = 8
GTF_writing = 16
GNTTAB_NR_RESERVED_ENTRIES = 8
# struct grant_entry_v1
GRANT_ENTRY_V1_DOMID = 2
GRANT_ENTRY_V1_FRAME = 4
GRANT_ENTRY_V1_SIZEOF = 8
# union grant_entry_v2
GRANT_ENTRY_V2_FRAME = 8
GRANT_ENTRY_V2_SIZEOF = 16
# struct gnttab_copy: twice, for source and dest, (frame or ref, domid, offset, padding); then len,
# flags, status and padding
GNTTAB_COPY = "<QHHIQHHIHHI"
GNTTAB_COPY_STATUS = 36
# struct gnttab_query_size: dom, padding, nr_frames, max_nr_frames, status, padding
GNTTAB_QUERY_SIZE = "<HHIIhH"
GNTTAB_QUERY_SIZE_NR_FRAMES = 4
GNTTAB_QUERY_SIZE_MAX_NR_FRAMES = 8
GNTTAB_QUERY_SIZE_SIZEOF = 16
# struct gnttab_get_version: dom, padding, version
GNTTAB_GET_VERSION = "<HHI"
GNTTAB_GET_VERSION_VERSION = 4
# struct gnttab_set_version: version
GNTTAB_SET_VERSION = "<I"

# io/xs_wire.h
XS_CONTROL = 0
XS_DIRECTORY = 1
XS_READ = 2
XS_GET_PERMS = 3
XS_WATCH = 4
XS_UNWATCH = 5
XS_TRANSACTION_START = 6
XS_TRANSACTION_END = 7
XS_INTRODUCE = 8
XS_RELEASE = 9
XS_GET_DOMAIN_PATH = 10
XS_WRITE = 11
XS_MKDIR = 12
XS_RM = 13
XS_SET_PERMS = 14
XS_WATCH_EVENT = 15
XS_ERROR = 16
XS_IS_DOMAIN_INTRODUCED = 17
XS_RESUME = 18
XS_SET_TARGET = 19
XS_RESET_WATCHES = 21
XS_DIRECTORY_PART = 22
XENSTORE_PAYLOAD_MAX = 4096
XENSTORE_ABS_PATH_MAX = 3072
XENSTORE_REL_PATH_MAX = 2048
# struct xsd_sockmsg
XSD_SOCKMSG_LEN = 12
XSD_SOCKMSG_SIZEOF = 16
# struct xenstore_domain_interface
XENSTORE_RING_SIZE = 1024
XENSTORE_RING_REQ = 0
XENSTORE_RING_RSP = 1024
XENSTORE_RING_REQ_CONS = 2048
XENSTORE_RING_REQ_PROD = 2052
XENSTORE_RING_RSP_CONS = 2056
XENSTORE_RING_RSP_PROD = 2060
XENSTORE_RING_SERVER_FEATURES = 2064
XENSTORE_RING_CONNECTION = 2068
XENSTORE_RING_ERROR = 2072
XENSTORE_SERVER_FEATURE_RECONNECTION = 1
XENSTORE_SERVER_FEATURE_ERROR = 2
XENSTORE_CONNECTED = 0
XENSTORE_RECONNECT = 1
XENSTORE_ERROR_NONE = 0
XENSTORE_ERROR_RINGIDX = 2
XENSTORE_ERROR_PROTO = 3

# io/xenbus.h
XenbusStateUnknown = 0
XenbusStateInitialising = 1
XenbusStateInitWait = 2
XenbusStateInitialised = 3
XenbusStateConnected = 4
XenbusStateClosing = 5
XenbusStateClosed = 6

# io/ring.h: struct blkif_sring
SRING_REQ_PROD = 0
SRING_REQ_EVENT = 4
SRING_RSP_PROD = 8
SRING_RSP_EVENT = 12
SRING_RING = 64

# io/blkif.h
BLKIF_OP_READ = 0
BLKIF_OP_WRITE = 1
BLKIF_OP_WRITE_BARRIER = 2
BLKIF_OP_FLUSH_DISKCACHE = 3
BLKIF_OP_DISCARD = 5
BLKIF_OP_INDIRECT = 6
BLKIF_RSP_OKAY = 0
BLKIF_RSP_ERROR = -1
BLKIF_RSP_EOPNOTSUPP = -2
BLKIF_MAX_SEGMENTS_PER_REQUEST = 11
BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8
VDISK_REMOVABLE = 2
VDISK_READONLY = 4
# struct blkif_request_segment
BLKIF_SEGMENT_SIZEOF = 8
