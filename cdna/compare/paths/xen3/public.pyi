"""Xen's public interface: its constants as Python sees them."""

import enum

class ReservedDomid(enum.IntFlag):
    DOMID_SELF = 32752

class GrantFlag(enum.IntFlag):
    GTF_invalid = 0
    GTF_permit_access = 1
    GTF_accept_transfer = 2
    GTF_type_mask = 3
    GTF_readonly = 4
    GTF_reading = 8
    GTF_writing = 16
    GTF_transfer_committed = 4
    GTF_transfer_completed = 8

class GrantOp(enum.IntFlag):
    GNTTABOP_map_grant_ref = 0
    GNTTABOP_unmap_grant_ref = 1
    GNTTABOP_transfer = 4
    GNTTABOP_copy = 5

class GrantMap(enum.IntFlag):
    GNTMAP_device_map = 1
    GNTMAP_host_map = 2
    GNTMAP_readonly = 4

class GrantCopy(enum.IntFlag):
    GNTCOPY_source_gref = 1
    GNTCOPY_dest_gref = 2

class GrantStatus(enum.IntFlag):
    GNTST_okay = 0
    GNTST_general_error = -1
    GNTST_bad_domain = -2
    GNTST_bad_gntref = -3
    GNTST_bad_handle = -4
    GNTST_bad_virt_addr = -5
    GNTST_bad_dev_addr = -6
    GNTST_no_device_space = -7
    GNTST_permission_denied = -8
    GNTST_bad_page = -9
    GNTST_bad_copy_arg = -10

class EvtchnState(enum.IntFlag):
    ECS_FREE = 0
    ECS_UNBOUND = 2
    ECS_INTERDOMAIN = 3

class Errno(enum.IntFlag):
    XEN_ENOENT = -2
    XEN_EINVAL = -22
    XEN_ENOSPC = -28
    XEN_ENOSYS = -38

class Hypercall(enum.IntFlag):
    HYPERVISOR_mmu_update = 1
    HYPERVISOR_memory_op = 12
    HYPERVISOR_update_va_mapping = 14
    HYPERVISOR_grant_table_op = 20
    HYPERVISOR_event_channel_op = 32

class MemoryOp(enum.IntFlag):
    XENMEM_increase_reservation = 0
    XENMEM_decrease_reservation = 1

class MmuUpdate(enum.IntFlag):
    MMU_MACHPHYS_UPDATE = 1

class EvtchnOp(enum.IntFlag):
    EVTCHNOP_send = 4

class NetifFlag(enum.IntFlag):
    NETTXF_csum_blank = 1
    NETTXF_data_validated = 2
    NETTXF_more_data = 4
    NETTXF_extra_info = 8
    NETRXF_data_validated = 1
    NETRXF_csum_blank = 2
    NETRXF_more_data = 4
    NETRXF_extra_info = 8

class NetifStatus(enum.IntFlag):
    NETIF_RSP_DROPPED = -2
    NETIF_RSP_ERROR = -1
    NETIF_RSP_OKAY = 0
    NETIF_RSP_NULL = 1

def sizes() -> dict[str, int]: ...
