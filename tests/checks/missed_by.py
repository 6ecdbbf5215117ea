"""Of each check, a test that fails without it (`test_every_check.py`)."""

MISSED_BY: dict[str, str] = {
    "CHECK_PRODUCER_AHEAD": "tests/nic/test_demux.py::"
    "test_a_stopped_promiscuous_context_loses_frames_that_are_counted",
    "CHECK_PRODUCER_BACK": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_producer_that_goes_back-validated]",
    "CHECK_SEQUENCE": "tests/vmm/test_isolation.py::test_a_doorbell_for_more_than_was_enqueued",
    "CHECK_TX_SHORT": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_frame_shorter_than_its_header-iommu:direct-map]",
    "CHECK_TX_LONG": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_frame_longer_than_any-none]",
    "CHECK_TX_VNET_SHORT": "tests/nic/test_limits.py::test_a_frame_has_room_for_both_of_its_headers",
    "CHECK_TX_VNET_LONG": "tests/nic/test_vnet.py::test_a_long_frame_that_asks_for_nothing",
    "CHECK_FRAGMENT_FLAGS": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[an_offload_descriptor_within_a_frame-iommu:direct-map]",
    "CHECK_FRAGMENT_EMPTY": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_part_of_no_length-iommu:direct-map]",
    "CHECK_FRAGMENT_LONG": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[parts_longer_than_any_frame-validated]",
    "CHECK_FRAGMENTS_SHORT": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[parts_shorter_than_a_header-iommu:direct-map]",
    "CHECK_FRAGMENTS_MANY": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_frame_of_too_many_parts-none]",
    "CHECK_FRAGMENTS_RING": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_ring_full_of_one_frame-none]",
    "CHECK_FRAGMENTS_VNET_LONG": "tests/nic/test_limits.py::"
    "test_fragments_without_work_to_do_are_no_longer_than_a_frame",
    "CHECK_RX_POSTED": "tests/guests/test_driver.py::"
    "test_views_that_are_kept_run_the_ring_dry_and_released_fill_it_again",
    "CHECK_RX_EMPTY": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_receive_buffer_of_no_length-none]",
    "CHECK_RX_FLAGS": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[an_offload_descriptor_for_receiving-none]",
    "CHECK_RX_ROOM": "tests/guests/test_driver.py::test_a_frame_in_too_many_buffers",
    "CHECK_SCATTER_POSTED": "tests/guests/test_driver.py::"
    "test_a_frame_that_fills_the_buffers_to_the_last_byte_and_one_byte_more[iommu:shared]",
    "CHECK_SCATTER_POSTED_AGAIN": "tests/checks/test_races.py::"
    "test_what_is_read_twice_is_checked_twice[shrinking_buffers]",
    "CHECK_SCATTER_REST": "tests/guests/test_driver.py::"
    "test_a_jumbo_frame_takes_several_buffers_each_with_its_completion[iommu:direct-map]",
    "CHECK_DMA_START": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[an_address_whose_end_wraps-none]",
    "CHECK_DMA_END": "tests/nic/test_faults.py::"
    "test_a_guest_that_stops_itself_by_its_own_frame_is_stopped_once",
    "CHECK_IO_RANGE": "tests/nic/test_limits.py::test_an_io_address_is_within_the_table",
    "CHECK_IO_PRESENT": "tests/vmm/test_iommu.py::"
    "test_a_page_unmapped_while_it_is_posted_stops_the_guest_and_stays_its_own",
    "CHECK_IO_CROSSING": "tests/vmm/test_iommu.py::test_an_io_address_reaches_the_page_that_the_vmm_mapped",
    "CHECK_SPOOF": "tests/nic/test_demux.py::"
    "test_a_source_address_that_is_not_its_own_is_dropped_and_counted",
    "CHECK_CONTROL": "tests/nic/test_demux.py::"
    "test_a_frame_for_the_link_is_dropped_with_the_sources_that_are_checked",
    "CHECK_TAG_SHORT": "tests/nic/test_demux.py::test_a_tag_that_is_cut_short_is_dropped",
    "CHECK_TAG": "tests/nic/test_demux.py::test_an_access_context_sends_no_tags_of_its_own",
    "CHECK_TAG_NESTED": "tests/nic/test_limits.py::test_an_access_port_sends_no_tag_behind_a_priority_tag",
    "CHECK_TX_MTU": "tests/nic/test_mtu.py::"
    "test_a_frame_longer_than_the_mtu_is_dropped_both_ways_and_counted[0]",
    "CHECK_LEARN_OWN": "tests/nic/test_learning.py::test_a_contexts_own_address_is_never_learned",
    "CHECK_LEARN_HOLD": "tests/nic/test_learning.py::"
    "test_another_guest_does_not_take_an_address_that_is_in_use",
    "CHECK_LEARN_MANY": "tests/nic/test_learning.py::"
    "test_a_flood_of_addresses_is_bounded_and_costs_the_neighbours_nothing",
    "CHECK_OFFLOAD_LONG": "tests/nic/test_limits.py::"
    "test_work_that_cannot_be_done[a frame too long to be sent whole]",
    "CHECK_MSS": "tests/nic/test_limits.py::test_a_segment_is_no_longer_than_a_frame",
    "CHECK_SEGMENTS": "tests/nic/test_vnet.py::"
    "test_a_header_that_cannot_be_stops_its_guest_alone[more segments than the NIC cuts]",
    "CHECK_GSO_CSUM": "tests/nic/test_limits.py::"
    "test_work_that_cannot_be_done[a large frame with its checksum done that is not UDP]",
    "CHECK_GSO_TCP": "tests/nic/test_vnet.py::test_random_headers_never_make_a_frame_of_other_bytes",
    "CHECK_GSO_FAMILY": "tests/nic/test_vnet.py::"
    "test_a_header_that_cannot_be_stops_its_guest_alone[the other family]",
    "CHECK_GSO_TYPE": "tests/nic/test_limits.py::test_work_that_cannot_be_done[a type that there is not]",
    "CHECK_GSO_SIZE": "tests/nic/test_limits.py::test_work_that_cannot_be_done[segments of nothing]",
    "CHECK_GSO_START": "tests/nic/test_limits.py::"
    "test_work_that_cannot_be_done[a checksum behind what is looked at]",
    "CHECK_TSO_LONG": "tests/nic/test_offload.py::test_refuses_a_frame_larger_than_any",
    "CHECK_TSO_MSS": "tests/nic/test_offload.py::test_refuses[no mss]",
    "CHECK_TSO_HEADERS": "tests/nic/test_offload.py::test_refuses[no payload]",
    "CHECK_TSO_HEADERS_LONG": "tests/nic/test_segmentation_udp.py::"
    "test_refuses_headers_that_are_too_long_to_repeat[2248-6-32768]",
    "CHECK_TSO_TRANSPORT": "tests/nic/test_offload.py::test_refuses[csum_start inside TCP]",
    "CHECK_TSO_KIND": "tests/nic/test_segmentation_udp.py::test_there_is_no_other_kind",
    "CHECK_TSO_SEGMENT": "tests/nic/test_offload.py::test_refuses[segment larger than a frame]",
    "CHECK_TCP_PROTOCOL": "tests/nic/test_offload.py::test_refuses[IPv6 of another protocol]",
    "CHECK_TCP_CSUM": "tests/nic/test_offload.py::test_refuses[csum_offset of UDP]",
    "CHECK_TCP_SHORT": "tests/nic/test_offload.py::test_refuses[TCP header too short]",
    "CHECK_TCP_OFFSET": "tests/nic/test_offload.py::test_refuses[data offset too small]",
    "CHECK_TCP_FLAGS": "tests/nic/test_offload.py::test_refuses[SYN]",
    "CHECK_UDP_PROTOCOL": "tests/nic/test_segmentation_udp.py::test_refuses[TCP-16384]",
    "CHECK_UDP_HEADER": "tests/nic/test_segmentation_udp.py::test_refuses[headers end behind UDP-16384]",
    "CHECK_UDP_CSUM": "tests/nic/test_segmentation_udp.py::test_only_fragments_may_leave_the_checksum_alone",
    "CHECK_FRAGMENT_PROTOCOL": "tests/nic/test_segmentation_udp.py::test_refuses[TCP-32768]",
    "CHECK_FRAGMENT_HEADER": "tests/nic/test_segmentation_udp.py::test_refuses[headers end behind UDP-32768]",
    "CHECK_FRAGMENT_CSUM": "tests/nic/test_segmentation_udp.py::test_refuses[csum_offset of TCP-32768]",
    "CHECK_FRAGMENT_IPV4": "tests/nic/test_segmentation_udp.py::test_no_packet_longer_than_ipv4_allows",
    "CHECK_FRAGMENT_MSS": "tests/nic/test_segmentation_udp.py::test_no_fragments_below_eight_bytes[5]",
    "CHECK_CSUM_START": "tests/nic/test_offload.py::"
    "test_any_offload_changes_two_bytes_behind_the_link_header_or_none[14]",
    "CHECK_CSUM_START_END": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_checksum_outside_the_frame-none]",
    "CHECK_CSUM_OFFSET": "tests/nic/test_offload.py::"
    "test_any_offload_changes_two_bytes_behind_the_link_header_or_none[14]",
    "CHECK_CSUM_FIELD": "tests/nic/test_offload.py::"
    "test_any_offload_changes_two_bytes_behind_the_link_header_or_none[14]",
    "CHECK_ETHERNET_SHORT": "tests/nic/test_offload.py::"
    "test_what_is_not_known_is_not_verified[half an Ethernet header]",
    "CHECK_ETHERNET_TAG": "tests/nic/test_offload.py::test_frames_that_end_anywhere[vlan-ipv4]",
    "CHECK_IPV4_SHORT": "tests/nic/test_offload.py::test_frames_that_end_anywhere[untagged-ipv4]",
    "CHECK_IPV4_VERSION": "tests/nic/test_limits.py::test_a_transport_header_is_found_in_whole_packets_alone",
    "CHECK_IPV4_FRAGMENT": "tests/nic/test_offload.py::"
    "test_what_is_not_known_is_not_verified[first fragment]",
    "CHECK_IPV4_HEADER": "tests/nic/test_offload.py::test_refuses[IPv4 header too short]",
    "CHECK_IPV4_OPTIONS": "tests/nic/test_limits.py::test_a_transport_header_is_found_in_whole_packets_alone",
    "CHECK_IPV6_SHORT": "tests/nic/test_offload.py::test_frames_that_end_anywhere[untagged-ipv6]",
    "CHECK_IPV6_VERSION": "tests/nic/test_limits.py::test_a_transport_header_is_found_in_whole_packets_alone",
    "CHECK_IPV6_EXTENSION": "tests/nic/test_offload.py::"
    "test_frames_that_end_anywhere[untagged-ipv6-extensions]",
    "CHECK_IPV6_EXTENSION_END": "tests/nic/test_offload.py::test_refuses[IPv6 extension header too long]",
    "CHECK_IPV6_ROUTING": "tests/nic/test_offload.py::"
    "test_what_is_not_known_is_not_verified[segments of a route left behind]",
    "CHECK_GUEST_ADDRESS": "tests/vmm/vhost_user/test_control_chains.py::"
    "test_a_chain_that_breaks_a_rule[packed-command outside-indirect]",
    "CHECK_GUEST_RUN": "tests/vmm/vhost_user/test_control_chains.py::"
    "test_a_table_that_is_none[split-2147483648]",
    "CHECK_GUEST_BYTES": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_across_two_regions_is_sent_as_the_guest_sees_it",
    "CHECK_USER_ADDRESS": "tests/vmm/vhost_user/test_limits.py::test_a_ring_lies_in_memory_and_is_aligned",
    "CHECK_USER_END": "tests/vmm/vhost_user/test_limits.py::test_a_ring_lies_in_memory_and_is_aligned",
    "CHECK_LOG_END": "tests/vmm/vhost_user/test_limits.py::test_a_page_beyond_the_dirty_log_is_not_marked",
    "CHECK_AVAILABLE": "tests/vmm/vhost_user/test_control_chains.py::test_more_available_than_the_ring_has",
    "CHECK_HEAD": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_head_is_in_the_table_also_where_a_descriptor_lies_behind_it",
    "CHECK_CHAIN_STEPS": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_chain_has_no_more_descriptors_than_256_be_they_empty[split]",
    "CHECK_CHAIN_PIECES": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_chain_lies_in_no_more_pieces_than_descriptors_may_be",
    "CHECK_CHAIN_BYTES": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_chain_has_no_more_bytes_than_32_bits_count[split]",
    "CHECK_CHAIN_DIRECTION": "tests/vmm/vhost_user/test_faults.py::"
    "test_the_offender_stops_and_nobody_else_loses_a_frame[a_buffer_to_be_written_for_transmission]",
    "CHECK_CHAIN_ORDER": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_command_that_breaks_a_rule[read behind written]",
    "CHECK_CHAIN_INDEX": "tests/vmm/vhost_user/test_control_chains.py::test_a_head_outside_the_ring[64]",
    "CHECK_CHAIN_SLOTS": "tests/checks/test_races.py::"
    "test_what_is_read_twice_is_checked_twice[endless_slots]",
    "CHECK_INDIRECT_FEATURE": "tests/vmm/vhost_user/test_limits.py::"
    "test_tables_are_for_those_who_negotiated_them[split]",
    "CHECK_INDIRECT_FLAGS": "tests/vmm/vhost_user/test_limits.py::"
    "test_the_descriptor_of_a_table_has_no_next_one",
    "CHECK_INDIRECT_EMPTY": "tests/vmm/vhost_user/test_control_chains.py::test_a_table_that_is_none[split-0]",
    "CHECK_INDIRECT_SIZE": "tests/vmm/vhost_user/test_control_chains.py::"
    "test_a_table_that_is_none[packed-15]",
    "CHECK_INDIRECT_NESTED": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_table_in_a_table_is_refused_also_where_it_makes_sense",
    "CHECK_BUFFER_FLAGS": "tests/vmm/vhost_user/test_frames.py::"
    "test_an_open_checksum_is_completed_for_the_wire[packed, indirect]",
    "CHECK_BUFFER_HEADER": "tests/vmm/vhost_user/test_faults.py::"
    "test_the_offender_stops_and_nobody_else_loses_a_frame[a_buffer_shorter_than_its_header]",
    "CHECK_CHAIN_HEADER": "tests/vmm/vhost_user/test_limits.py::test_a_chain_has_a_whole_header[split]",
    "CHECK_FLAT_SHORT": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_of_no_possible_length_is_dropped_and_counted[shorter than a header-one piece-split]",
    "CHECK_FLAT_LONG": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_of_no_possible_length_is_dropped_and_counted[longer than a frame-one piece-split]",
    "CHECK_PIECES_SHORT": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_of_no_possible_length_is_dropped_and_counted[shorter than a header-pieces-split]",
    "CHECK_PIECES_WORK": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_of_no_possible_length_is_dropped_and_counted[longer than a frame-pieces-split]",
    "CHECK_COLLECTED_WORK": "tests/checks/test_races.py::"
    "test_what_is_read_twice_is_checked_twice[changing_headers]",
    "CHECK_COLLECTED_LONG": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_whose_headers_are_said_to_be_long_fits_the_nic[split]",
    "CHECK_FILL_FLAGS": "tests/vmm/vhost_user/test_faults.py::"
    "test_the_offender_stops_and_nobody_else_loses_a_frame[a_receive_buffer_to_be_read]",
    "CHECK_FILL_ROOM": "tests/vmm/vhost_user/test_frames.py::test_a_frame_in_several_buffers",
    "CHECK_MERGED_MANY": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_frame_takes_no_more_buffers_than_64[split]",
    "CHECK_MERGED_FEATURE": "tests/vmm/vhost_user/test_frames.py::test_a_frame_that_fits_no_buffer",
    "CHECK_MERGED_AVAILABLE": "tests/vmm/vhost_user/test_frames.py::"
    "test_a_mergeable_frame_beyond_all_buffers",
    "CHECK_MERGED_CRUMBS": "tests/vmm/vhost_user/test_limits.py::test_a_frame_is_not_scattered_over_crumbs",
    "CHECK_RING_ALIGNED": "tests/vmm/vhost_user/test_limits.py::test_a_ring_lies_in_memory_and_is_aligned",
    "CHECK_RING_NOTED": "tests/vmm/vhost_user/test_limits.py::test_a_position_that_cannot_be_is_not_taken_up",
    "CHECK_RING_STARTED": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_started_ring_keeps_size_position_and_format",
    "CHECK_RING_POWER": "tests/vmm/vhost_user/test_limits.py::"
    "test_the_size_of_a_split_ring_is_a_power_of_two",
    "CHECK_RING_BASE": "tests/vmm/vhost_user/test_bad_messages.py::test_a_packed_base_within_the_ring",
    "CHECK_RING_EMPTY": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_ring_is_started_with_a_size_and_at_an_index_that_it_has",
    "CHECK_RING_INDEX": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_ring_is_started_with_a_size_and_at_an_index_that_it_has",
    "CHECK_RING_LOCATED": "tests/vmm/vhost_user/test_limits.py::test_a_ring_lies_in_memory_and_is_aligned",
    "CHECK_OFFLOADS_ACCEPTED": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_offloads_that_were_not_accepted",
    "CHECK_INFLIGHT_SIZE": "tests/vmm/vhost_user/test_limits.py::"
    "test_an_inflight_area_is_as_large_as_its_queues_need",
    "CHECK_INFLIGHT_QUEUE": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_queue_has_a_part_of_the_inflight_area_that_is_its_own",
    "CHECK_INFLIGHT_DESCRIPTORS": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_ring_larger_than_its_part_of_the_inflight_area_has_none",
    "CHECK_INFLIGHT_END": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_part_of_the_inflight_area_ends_within_it",
    "CHECK_INFLIGHT_INDEX": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_position_in_the_inflight_area_is_in_the_ring[at2]",
    "CHECK_FEATURES_MODERN": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[packed without version 1]",
    "CHECK_FORMAT_STARTED": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_started_ring_keeps_size_position_and_format",
    "CHECK_RSS_TABLE": "tests/vmm/vhost_user/test_limits.py::"
    "test_an_rss_table_and_its_key_are_as_long_as_they_must_be",
    "CHECK_RSS_KEY": "tests/vmm/vhost_user/test_limits.py::"
    "test_an_rss_table_and_its_key_are_as_long_as_they_must_be",
    "CHECK_COMMAND_HEAD": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_command_that_breaks_a_rule[half a head]",
    "CHECK_COMMAND_ANSWER": "tests/vmm/vhost_user/test_limits.py::"
    "test_a_command_that_breaks_a_rule[nothing to write to]",
    "CHECK_COMMAND_LONG": "tests/vmm/vhost_user/test_limits.py::test_a_command_longer_than_any_is_not_read",
    "CHECK_CONTEXT_RANGE": "tests/vmm/test_refusals.py::"
    "test_a_context_of_another_no_context_and_a_ring_that_does_not_exist",
    "CHECK_CONTEXT_OWNER": "tests/vmm/test_refusals.py::test_another_guests_io_table_is_out_of_reach",
    "CHECK_CONTEXT_RUNNING": "tests/nic/test_faults.py::"
    "test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame[a_part_of_no_length-iommu:direct-map]",
    "CHECK_RING_NUMBER": "tests/vmm/test_refusals.py::"
    "test_a_context_of_another_no_context_and_a_ring_that_does_not_exist",
    "CHECK_ENQUEUE_MODE": "tests/vmm/test_refusals.py::"
    "test_enqueue_belongs_to_the_validated_mode[iommu:persistent]",
    "CHECK_RING_FULL": "tests/vmm/test_refusals.py::"
    "test_a_full_ring_takes_no_more_until_the_nic_has_consumed[1]",
    "CHECK_REQUEST_FLAGS": "tests/vmm/test_refusals.py::"
    "test_an_offload_descriptor_is_refused_on_the_receive_ring",
    "CHECK_PIN_EMPTY": "tests/vmm/test_refusals.py::"
    "test_a_bad_request_is_refused_and_what_stood_before_it_is_taken[no length-0-3]",
    "CHECK_PIN_START": "tests/vmm/test_refusals.py::"
    "test_a_bad_request_is_refused_and_what_stood_before_it_is_taken[an end that wraps-1-3]",
    "CHECK_PIN_END": "tests/vmm/test_refusals.py::"
    "test_a_bad_request_is_refused_and_what_stood_before_it_is_taken[the end of memory-0-0]",
    "CHECK_PIN_OWNER": "tests/vmm/test_refusals.py::"
    "test_a_bad_request_is_refused_and_what_stood_before_it_is_taken[a neighbour's page-0-3]",
    "CHECK_MAP_MODE": "tests/vmm/test_refusals.py::test_mapping_belongs_to_the_iommu_mode[validated]",
    "CHECK_MAP_IO_RANGE": "tests/vmm/test_refusals.py::"
    "test_mapping_takes_only_pages_of_its_own_at_free_io_pages",
    "CHECK_MAP_RANGE": "tests/vmm/test_refusals.py::"
    "test_mapping_takes_only_pages_of_its_own_at_free_io_pages",
    "CHECK_MAP_OWNER": "tests/vmm/test_refusals.py::"
    "test_mapping_takes_only_pages_of_its_own_at_free_io_pages",
    "CHECK_MAP_MAPPED": "tests/vmm/test_refusals.py::"
    "test_mapping_takes_only_pages_of_its_own_at_free_io_pages",
    "CHECK_UNMAP_MODE": "tests/vmm/test_refusals.py::test_mapping_belongs_to_the_iommu_mode[validated]",
    "CHECK_UNMAP_RANGE": "tests/nic/test_limits.py::test_an_io_page_that_is_unmapped_is_within_the_table",
    "CHECK_UNMAP_MAPPED": "tests/vmm/test_iommu.py::"
    "test_an_unmapped_page_stays_pinned_until_the_next_hypercall",
    "CHECK_UNMAP_LIMBO": "tests/vmm/test_limbo.py::test_no_more_pages_are_unmapped_than_can_wait",
    "CHECK_LIMBO_EPOCH": "tests/vmm/test_limbo.py::test_no_more_pages_are_unmapped_than_can_wait",
    "CHECK_TRANSFER_RANGE": "tests/vmm/test_refusals.py::test_a_transfer_is_refused_as_a_whole",
    "CHECK_TRANSFER_OWNER": "tests/vmm/test_refusals.py::test_a_transfer_is_refused_as_a_whole",
    "CHECK_TRANSFER_PINNED": "tests/vmm/test_refusals.py::test_a_transfer_is_refused_as_a_whole",
    "CHECK_MESSAGE_HEAD": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[the header alone has]",
    "CHECK_MESSAGE_OP": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[unknown hypercall]",
    "CHECK_MESSAGE_RESERVED": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[ENQUEUE with reserved fields]",
    "CHECK_MESSAGE_RING": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[MAP with reserved fields]",
    "CHECK_MESSAGE_ENTRIES": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[with 257 entries: at most 256]",
    "CHECK_MESSAGE_NO_ENTRIES": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[with 1 entries: at most 0]",
    "CHECK_MESSAGE_LENGTH": "tests/nic/test_limits.py::"
    "test_a_message_that_no_driver_would_send[with 2 entries in 32 bytes]",
    "CHECK_REAP_OWNER": "tests/nic/test_limits.py::"
    "test_a_buffer_to_be_given_back_is_of_a_context_that_is_the_callers",
    "CHECK_GUEST_USER": "tests/vmm/test_server.py::test_a_user_that_nobody_named",
    "CHECK_GUEST_WAITING": "tests/vmm/test_server.py::test_nobody_waits_forever_for_a_request",
    "CHECK_GUESTS_MANY": "tests/vmm/test_server.py::test_no_more_guests_than_are_allowed",
    "CHECK_GUEST_REVOKED": "tests/vmm/test_server.py::"
    "test_a_message_that_came_before_its_context_was_taken_away",
    "CHECK_REQUEST_LONG": "tests/vmm/test_policy.py::test_what_is_no_request[too long]",
    "CHECK_REQUEST_FIELDS": "tests/vmm/test_policy.py::test_what_is_no_request[a fifth field]",
    "CHECK_REQUEST_VERSION": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[version]",
    "CHECK_REQUEST_NAME": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[name of two lines]",
    "CHECK_REQUEST_MEMORY": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[more memory]",
    "CHECK_REQUEST_SETTINGS": "tests/vmm/test_policy.py::test_what_is_no_request[a list of settings]",
    "CHECK_REQUEST_PROTECTION": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[protection]",
    "CHECK_SETTING_CHOICE": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[anti_spoof]",
    "CHECK_SETTING_TYPE": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[ring as a switch]",
    "CHECK_SETTING_RANGE": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[negative ring]",
    "CHECK_SETTING_LIST": "tests/vmm/test_policy.py::test_what_may_not_be_asked_for[numbers for groups]",
    "CHECK_SETTING_MAC": "tests/vmm/test_server.py::test_a_guest_that_asks_for_the_gateways_address",
    "CHECK_FRONTEND_USER": "tests/vmm/vhost_user/test_connections.py::test_a_user_that_may_not",
    "CHECK_REFUSED_CLOSING": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_sockets_of_users_that_may_not_are_closed_in_bounds",
    "CHECK_FRONTEND_CLOSING": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_descriptors_that_do_not_close_have_a_bound",
    "CHECK_FRONTEND_FDS_CLOSING": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_descriptors_that_do_not_close_have_a_bound",
    "CHECK_FRONTEND_VERSION": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_flags_that_cannot_be[0-version 0]",
    "CHECK_FRONTEND_REPLY": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_flags_that_cannot_be[5-a reply, and nothing was asked]",
    "CHECK_FRONTEND_PAYLOAD": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_a_payload_of_any_size_is_not_waited_for[1025]",
    "CHECK_FRONTEND_FDS_CUT": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_no_message_has_so_many_descriptors[17]",
    "CHECK_FRONTEND_FDS_MANY": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_no_message_in_pieces_has_so_many_descriptors",
    "CHECK_FRONTEND_UNREAD": "tests/vmm/vhost_user/test_bad_messages.py::test_replies_that_nobody_reads",
    "CHECK_MESSAGE_OFFERED": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_what_is_not_offered_is_refused[GET_QUEUE_NUM]",
    "CHECK_MESSAGE_SIZE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_every_payload_has_its_size[SET_OWNER]",
    "CHECK_MESSAGE_FDS": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_surplus_descriptors_are_closed[SET_OWNER]",
    "CHECK_REGIONS_WHOLE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[more regions than bytes]",
    "CHECK_CONFIG_WHOLE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[configuration that is shorter]",
    "CHECK_FEATURES_OFFERED": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[unknown feature]",
    "CHECK_FEATURES_RUNNING": "tests/vmm/vhost_user/test_messages.py::"
    "test_features_do_not_change_under_running_rings",
    "CHECK_PROTOCOL_OFFERED": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[protocol features]",
    "CHECK_STATUS_BYTE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[status beyond a byte]",
    "CHECK_REGIONS_FDS": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[surplus descriptor]",
    "CHECK_ENABLE_SWITCH": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[enable by 2]",
    "CHECK_RING_FD": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[call that is said to be none]",
    "CHECK_MTU": "tests/vmm/vhost_user/test_messages.py::test_an_mtu_beyond_the_contexts_is_declined[1501-1]",
    "CHECK_CONFIG_READ": "tests/vmm/vhost_user/test_messages.py::"
    "test_beyond_the_configuration_space_there_is_nothing[256-1]",
    "CHECK_CONFIG_WRITE": "tests/vmm/vhost_user/test_messages.py::test_the_configuration_space_is_read_only",
    "CHECK_CONFIG_MIGRATION": "tests/vmm/vhost_user/test_messages.py::"
    "test_the_configuration_space_is_read_only",
    "CHECK_CONFIG_MAC": "tests/vmm/vhost_user/test_messages.py::test_the_configuration_space_is_read_only",
    "CHECK_CHANNEL": "tests/vmm/vhost_user/test_hostile_frontends.py::test_a_channel_that_is_no_unix_stream",
    "CHECK_INFLIGHT_SHAPE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[inflight of long queues]",
    "CHECK_INFLIGHT_AREAS": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_inflight_areas_are_counted_over_connections",
    "CHECK_QUEUE_NUMBER": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[base of no queue]",
    "CHECK_QUEUE_RUNNING": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_a_running_ring_keeps_size_and_base[10]",
    "CHECK_QUEUE_SIZE": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[ring too large]",
    "CHECK_EVENT_FD": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[call that is memory]",
    "CHECK_SIGNAL_UNREAD": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_a_socket_to_signal_by_in_which_something_is_left",
    "CHECK_COMMAND_ACCEPTED": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_a_command_of_a_feature_that_was_not_accepted",
    "CHECK_COMMAND_SIZE": "tests/vmm/vhost_user/test_control_commands.py::test_refused[two switches]",
    "CHECK_COMMAND_SWITCH": "tests/vmm/vhost_user/test_control_commands.py::test_refused[half a switch]",
    "CHECK_PROMISCUOUS": "tests/vmm/vhost_user/test_control_commands.py::test_promiscuous_only_where_it_may",
    "CHECK_TABLE_COUNT": "tests/vmm/vhost_user/test_control_commands.py::test_refused[one table]",
    "CHECK_TABLE_WHOLE": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_refused[a table of one too many]",
    "CHECK_TABLE_END": "tests/vmm/vhost_user/test_control_commands.py::test_refused[more than the tables]",
    "CHECK_TABLE_KIND": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_an_address_in_the_wrong_table[tables1]",
    "CHECK_TABLE_OTHERS": "tests/vmm/vhost_user/test_control_commands.py::test_unicast_addresses",
    "CHECK_ADDRESS_OWN": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_an_address_that_is_not_the_guests_to_choose",
    "CHECK_ADDRESS_TAKEN": "tests/vmm/vhost_user/test_control_commands.py::test_an_address_of_its_own_choice",
    "CHECK_VLAN_NUMBER": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_vlans_within_the_contexts[trunk-added2]",
    "CHECK_VLAN_TRUNK": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_vlans_within_the_contexts[5-added1]",
    "CHECK_PAIRS": "tests/vmm/vhost_user/test_control_commands.py::test_pairs",
    "CHECK_RSS_HEAD": "tests/vmm/vhost_user/test_control_commands.py::test_rss_that_cannot_be[nothing]",
    "CHECK_RSS_TYPES": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_rss_that_cannot_be[unknown types]",
    "CHECK_RSS_ENTRIES": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_rss_that_cannot_be[no power of two]",
    "CHECK_RSS_TAIL": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_rss_that_cannot_be[a table that is not there]",
    "CHECK_RSS_KEY_BYTES": "tests/vmm/vhost_user/test_control_commands.py::test_rss_that_cannot_be[no key]",
    "CHECK_RSS_QUEUES": "tests/vmm/vhost_user/test_control_commands.py::"
    "test_rss_that_cannot_be[a queue that is none]",
    "CHECK_FILE_MEMORY": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_a_file_that_its_file_system_makes_up",
    "CHECK_FILE_END": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[region beyond its file]",
    "CHECK_FILE_PAGE": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_a_region_that_begins_within_a_page",
    "CHECK_MAPPED": "tests/vmm/vhost_user/test_hostile_frontends.py::test_addresses_are_left_for_others",
    "CHECK_MAPPED_BY_ALL": "tests/vmm/vhost_user/test_hostile_frontends.py::"
    "test_all_guests_together_leave_addresses",
    "CHECK_LENT_OWN": "tests/vmm/vhost_user/test_lent.py::test_a_limit_of_its_own_lifts_it",
    "CHECK_LENT_SHARED": "tests/vmm/vhost_user/test_lent.py::test_guests_share",
    "CHECK_REGIONS_MANY": "tests/vmm/vhost_user/test_hostile_frontends.py::test_regions_that_are_many",
    "CHECK_REGION_WRAPS": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[guest addresses that wrap]",
    "CHECK_REGION_GUEST": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[regions that overlap]",
    "CHECK_REGION_USER": "tests/vmm/vhost_user/test_bad_messages.py::"
    "test_the_connection_ends_and_the_next_is_served[user addresses that overlap]",
    "CHECK_CLIENT_USER": "tests/lab/test_control.py::test_another_users_client",
    "CHECK_CLIENT_SESSIONS": "tests/lab/test_control.py::test_idle_sessions_have_a_bound",
    "CHECK_CLIENT_CUT": "tests/lab/test_control.py::test_a_request_that_is_cut",
    "CHECK_CLIENT_FDS_CUT": "tests/lab/test_control.py::test_a_request_with_more_descriptors_than_any",
    "CHECK_LAB_USER": "tests/lab/test_control.py::test_another_users_lab",
    "CHECK_CLIENT_GUEST": "tests/lab/test_commands.py::test_what_is_refused[a list for a guest]",
    "CHECK_CLIENT_SETTINGS": "tests/lab/test_commands.py::test_what_is_refused[a text for settings]",
    "CHECK_CLIENT_LINK": "tests/lab/test_commands.py::test_what_is_refused[a text for up]",
    "CHECK_CLIENT_ENTERED": "tests/lab/test_commands.py::test_a_file_is_kept_for_who_has_entered_a_guest",
    "CHECK_CLIENT_KEEP": "tests/lab/test_commands.py::test_no_file_is_kept_of_none",
    "CHECK_METRICS_LONG": "tests/lab/test_metrics.py::test_a_request_that_is_too_long",
    "CHECK_METRICS_MANY": "tests/lab/test_metrics.py::test_idle_connections_have_a_bound",
    "CHECK_METRICS_UNREAD": "tests/lab/test_metrics.py::test_answers_that_are_not_read_have_a_bound",
}
