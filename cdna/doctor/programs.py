"""Programs beside this one: what tests and the tutorial use."""

from cdna.extend.finding import Finding
from cdna.extend.host import Host

# Program, its package in Debian, the option that prints its version, what it is for.
TOOLS = (
    ("ip", "iproute2", "-V", "looking at devices and addresses by hand"),
    ("ping", "iputils-ping", "-V", "the tutorial, latency tests and figures"),
    ("iperf3", "iperf3", "--version", "throughput tests and figures"),
    ("curl", "curl", "--version", "the tutorial and file transfer tests"),
    ("tshark", "tshark", "--version", "tests that a capture opens"),
    ("wireshark", "wireshark", "--version", "contexts as interfaces of its own, by the extcap"),
)


def tools(host: Host) -> list[Finding]:
    return [tool(host, *known) for known in TOOLS]


def tool(host: Host, name: str, package: str, version: str, purpose: str) -> Finding:
    if host.which(name) is None:
        return Finding(name, "missing", "not found", f"for {purpose}", host.install(package))
    return Finding(name, "ok", host.version(name, version), f"for {purpose}")
