"""UDP inside a guest: every datagram is sent back, and compared.

python benchmarks/soaklab/datagrams.py echo ADDRESS
python benchmarks/soaklab/datagrams.py talk ADDRESS      (a line on stdin: how many; its answer is JSON)
"""

from __future__ import annotations

import json
import random
import socket
import sys

PORT = 7777
BURST = 16
SECONDS = 20.0  # to wait for a datagram


def echo(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, PORT))
        print("ready", flush=True)
        while True:
            data, whom = sock.recvfrom(2048)
            sock.sendto(data, whom)


def talk(sock: socket.socket, count: int) -> dict[str, int]:
    sent = received = changed = 0
    while sent < count:
        burst = {random.randbytes(random.randint(8, 1400)) for _ in range(min(BURST, count - sent))}
        for data in burst:
            sock.send(data)
        sent += len(burst)
        try:
            for _ in range(len(burst)):
                data = sock.recv(2048)
                changed += data not in burst
                received += data in burst
        except TimeoutError:
            break
    return {"sent": sent, "received": received, "changed": changed}


def main(what: str, address: str) -> None:
    if what == "echo":
        echo(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect((address, PORT))
        for line in sys.stdin:
            print(json.dumps(talk(sock, int(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
