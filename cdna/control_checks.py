"""The checks that control makes of what guests, frontends and clients say, by name.

    if broken(Control.CHECK_GUEST_REVOKED, context.revoked):

This is the condition; in a test build (docs/checks.md), of a check that is off (`cdna.checks.off`), never.
Checks of the data path have their names in ext/cdna/checks.pxd. The comments are the table in docs/checks.md.
"""

from __future__ import annotations

from enum import Enum, auto


class Control(Enum):
    # cdna/vmm/server.py: guests in other processes
    CHECK_GUEST_USER = auto()  # a guest's user is the VMM's own, root, or one that the operator named
    CHECK_GUEST_WAITING = auto()  # no more than WAITING are connected that have made no request
    CHECK_GUESTS_MANY = auto()  # no more guests are connected than the policy allows
    CHECK_GUEST_REVOKED = auto()  # a message is carried out while its context is the guest's
    # cdna/vmm/policy.py: a guest's first message
    CHECK_REQUEST_LONG = auto()  # a request has at most REQUEST_BYTES
    CHECK_REQUEST_FIELDS = auto()  # it is an object with the known fields, all of them
    CHECK_REQUEST_VERSION = auto()  # a request is of this version
    CHECK_REQUEST_NAME = auto()  # the guest's name is short, and fit for a log
    CHECK_REQUEST_MEMORY = auto()  # its memory is a number of bytes that the policy allows
    CHECK_REQUEST_SETTINGS = auto()  # its settings are an object
    CHECK_REQUEST_PROTECTION = auto()  # the policy allows its protection
    CHECK_SETTING_CHOICE = auto()  # a setting is the guest's to choose
    CHECK_SETTING_TYPE = auto()  # a setting is of its type
    CHECK_SETTING_RANGE = auto()  # a number is neither negative nor larger than LARGEST
    CHECK_SETTING_LIST = auto()  # a list of addresses has texts
    CHECK_SETTING_MAC = auto()  # a MAC address that a guest chooses is one that the policy names
    # cdna/vmm/vhost_user/guest.py: frontends
    CHECK_FRONTEND_USER = auto()  # a frontend's user is the server's own, root, or one that was named
    CHECK_REFUSED_CLOSING = auto()  # few sockets of users that may not attach are still being closed
    CHECK_FRONTEND_CLOSING = auto()  # few descriptors of frontends before are still being closed
    CHECK_FRONTEND_FDS_CLOSING = auto()  # also when more come with a message
    # cdna/vmm/vhost_user/connection.py: messages of frontends
    CHECK_FRONTEND_VERSION = auto()  # a message is of this version
    CHECK_FRONTEND_REPLY = auto()  # and no reply
    CHECK_FRONTEND_PAYLOAD = auto()  # its payload is announced with at most MAX_PAYLOAD bytes
    CHECK_FRONTEND_FDS_CUT = auto()  # no more descriptors come at once than there is room for
    CHECK_FRONTEND_FDS_MANY = auto()  # nor with one message in pieces
    CHECK_FRONTEND_UNREAD = auto()  # replies are read
    # cdna/vmm/vhost_user/backend.py: what a message has to look like
    CHECK_MESSAGE_OFFERED = auto()  # the protocol feature that it belongs to is offered
    CHECK_MESSAGE_SIZE = auto()  # its payload is as long as it must be
    CHECK_MESSAGE_FDS = auto()  # and the descriptors are as many
    # cdna/protocol/vhost_user.py: payloads
    CHECK_REGIONS_WHOLE = auto()  # a memory table has the regions that it counts, and whole ones
    CHECK_CONFIG_WHOLE = auto()  # a piece of configuration space is as long as it says
    # cdna/vmm/vhost_user/handlers.py: what messages ask for
    CHECK_FEATURES_OFFERED = auto()  # features were offered
    CHECK_FEATURES_RUNNING = auto()  # they do not change while rings run
    CHECK_PROTOCOL_OFFERED = auto()  # protocol features were offered
    CHECK_STATUS_BYTE = auto()  # a status is a byte
    CHECK_REGIONS_FDS = auto()  # each region has a descriptor
    CHECK_ENABLE_SWITCH = auto()  # a ring is enabled by 0 or 1
    CHECK_RING_FD = auto()  # a ring's descriptor is there where the payload says so
    CHECK_MTU = auto()  # an MTU is within the context's
    CHECK_CONFIG_READ = auto()  # a read stays within the configuration space
    CHECK_CONFIG_WRITE = auto()  # so does a write
    CHECK_CONFIG_MIGRATION = auto()  # only a migration writes there
    CHECK_CONFIG_MAC = auto()  # with the same address
    CHECK_CHANNEL = auto()  # a channel for requests of ours is a Unix stream socket
    # cdna/vmm/vhost_user/inflight.py: inflight areas
    CHECK_INFLIGHT_SHAPE = auto()  # an area is for queues that there can be
    CHECK_INFLIGHT_AREAS = auto()  # a guest asks for few areas at once, and for one a minute later on
    # cdna/vmm/vhost_user/rings.py: rings
    CHECK_QUEUE_NUMBER = auto()  # there is such a queue
    CHECK_QUEUE_RUNNING = auto()  # size and base do not change while it runs
    CHECK_QUEUE_SIZE = auto()  # a size is one that a ring can have
    # cdna/nic/event_fd.py: descriptors to signal by
    CHECK_EVENT_FD = auto()  # a descriptor is an eventfd, on which nothing waits
    CHECK_SIGNAL_UNREAD = auto()  # or a socket in which nothing is left to be closed
    # cdna/vmm/vhost_user/net_control.py: commands of drivers
    CHECK_COMMAND_ACCEPTED = auto()  # the feature that a command belongs to was accepted
    CHECK_COMMAND_SIZE = auto()  # its data are as long as they must be
    CHECK_COMMAND_SWITCH = auto()  # a switch is 0 or 1
    CHECK_PROMISCUOUS = auto()  # only where the operator has it on is a guest promiscuous
    CHECK_TABLE_COUNT = auto()  # a table of addresses has its count
    CHECK_TABLE_WHOLE = auto()  # and the addresses that it counts
    CHECK_TABLE_END = auto()  # nothing follows the two tables
    CHECK_TABLE_KIND = auto()  # the unicast table has no groups, the multicast table nothing else
    CHECK_TABLE_OTHERS = auto()  # nor addresses of others, where anti-spoof is on
    CHECK_ADDRESS_OWN = auto()  # where anti-spoof is on, a guest keeps its address
    CHECK_ADDRESS_TAKEN = auto()  # it takes none of another context's
    CHECK_VLAN_NUMBER = auto()  # there is such a VLAN
    CHECK_VLAN_TRUNK = auto()  # and the context is a trunk
    CHECK_PAIRS = auto()  # the device has so many pairs
    CHECK_RSS_HEAD = auto()  # an RSS command has its head
    CHECK_RSS_TYPES = auto()  # known types
    CHECK_RSS_ENTRIES = auto()  # a table that fits, with a power of two entries
    CHECK_RSS_TAIL = auto()  # that is there, and what follows it
    CHECK_RSS_KEY_BYTES = auto()  # a key that fits
    CHECK_RSS_QUEUES = auto()  # and queues of this device
    # ext/cdna/nic/virtio/mapping.pyx: files that are a guest's memory
    CHECK_FILE_MEMORY = auto()  # a file is in memory, so no other process is asked for its pages
    CHECK_FILE_END = auto()  # a mapping lies within its file
    CHECK_FILE_PAGE = auto()  # and begins with a page
    CHECK_MAPPED = auto()  # a guest maps at most MAX_MAPPED
    CHECK_MAPPED_BY_ALL = auto()  # and leaves addresses to the others
    # cdna/nic/virtio/regions.py: memory tables
    CHECK_REGIONS_MANY = auto()  # it has at most VIRTIO_MAX_REGIONS
    CHECK_REGION_WRAPS = auto()  # a region has bytes, and its addresses do not wrap around
    CHECK_REGION_GUEST = auto()  # its guest addresses are in no other region
    CHECK_REGION_USER = auto()  # nor its user addresses
    # cdna/vmm/vhost_user/lent.py: how much of them is mapped
    CHECK_LENT_OWN = auto()  # a guest with memory= maps at most that
    CHECK_LENT_SHARED = auto()  # and the others together no more than the server can pay for
    # cdna/lab/control.py: clients of the control socket
    CHECK_CLIENT_USER = auto()  # a client's user is the lab's, or root
    CHECK_CLIENT_SESSIONS = auto()  # no more than SESSIONS are open
    CHECK_CLIENT_CUT = auto()  # a request is whole
    CHECK_CLIENT_FDS_CUT = auto()  # and so are the descriptors with it
    CHECK_LAB_USER = auto()  # a lab that is asked is this user's, or root's
    # cdna/lab/commands.py: their requests
    CHECK_CLIENT_GUEST = auto()  # a guest is named
    CHECK_CLIENT_SETTINGS = auto()  # settings are an object
    CHECK_CLIENT_LINK = auto()  # a link is up or down
    CHECK_CLIENT_ENTERED = auto()  # a client that has a file kept has entered a guest
    CHECK_CLIENT_KEEP = auto()  # and gives one
    # cdna/lab/metrics_server.py: clients of the metrics
    CHECK_METRICS_LONG = auto()  # a request has at most REQUEST_BYTES
    CHECK_METRICS_MANY = auto()  # no more than CONNECTIONS are open
    CHECK_METRICS_UNREAD = auto()  # and ANSWERS unread


off: set[Control] = set()  # what a test build has switched off (`cdna.checks.off`); no other build can


def broken(check: Control, condition: object) -> bool:
    """Return whether a rule is broken: the condition; of a check that is off, never."""
    return bool(condition) and check not in off
