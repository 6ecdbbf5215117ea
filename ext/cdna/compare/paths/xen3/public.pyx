"""Xen's public interface as Python sees it: the constants, and the sizes for a golden test."""
# build: control


def sizes() -> dict:
    """Bytes of each structure that domains and the hypervisor share."""
    return {
        "grant_entry": sizeof(grant_entry_t),
        "netif_tx_request": sizeof(netif_tx_request_t),
        "netif_tx_response": sizeof(netif_tx_response_t),
        "netif_tx_entry": sizeof(netif_tx_entry_t),
        "netif_rx_request": sizeof(netif_rx_request_t),
        "netif_rx_response": sizeof(netif_rx_response_t),
        "netif_rx_entry": sizeof(netif_rx_entry_t),
        "sring": sizeof(sring_t),
        "netif_tx_sring": sizeof(netif_tx_sring_t),
        "netif_rx_sring": sizeof(netif_rx_sring_t),
        "shared_info": sizeof(shared_info_t),
    }
