"""Xen's public interface restated: a layout that moves breaks these."""

from tests.support.xen_parts import sizes

from tests.support.xen import xen


def test_sizes_are_those_of_xens_headers() -> None:
    assert sizes == {
        "grant_entry": 8,
        "netif_tx_request": 12,
        "netif_tx_response": 4,
        "netif_tx_entry": 12,
        "netif_rx_request": 8,
        "netif_rx_response": 8,
        "netif_rx_entry": 8,
        "sring": 64,
        "netif_tx_sring": 64 + 256 * 12,
        "netif_rx_sring": 64 + 256 * 8,
        "shared_info": 64 + 2 * 512,
    }


def test_values_are_those_of_xens_headers() -> None:
    assert (xen.GTF_permit_access, xen.GTF_accept_transfer, xen.GTF_readonly) == (1, 2, 4)
    assert (xen.GTF_reading, xen.GTF_writing) == (8, 16)
    assert (xen.GTF_transfer_committed, xen.GTF_transfer_completed) == (4, 8)
    assert (xen.GNTTABOP_map_grant_ref, xen.GNTTABOP_unmap_grant_ref) == (0, 1)
    assert (xen.GNTTABOP_transfer, xen.GNTTABOP_copy) == (4, 5)
    assert (xen.NETTXF_more_data, xen.NETRXF_more_data) == (4, 4)
    assert (xen.GNTST_bad_gntref, xen.GNTST_bad_page, xen.GNTST_bad_copy_arg) == (-3, -9, -10)
