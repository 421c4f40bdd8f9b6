"""A browser as far as TLS and WebSocket go, for tls-test.sh: connects to wss://localhost:PORT/ws with a certificate authority, and
from an address, of its own. Python's own library only.

    client.py AUTHORITY PORT HTTP_PORT

HTTP_PORT is the gateway's, whose /metrics is asked. Prints what held; ends with 1 at the first that does not.
"""

import base64
import json
import os
import re
import socket
import ssl
import sys
import time
import urllib.request

SECONDS_MAX = 20
METRICS_SECONDS = 1.5
AUTHORITY, TLS_PORT, GATEWAY_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Connection:
    """One TLS connection, and the answer to a GET, which asks for an upgrade where sessions are."""

    def __init__(self, path, source, **headers):
        plain = socket.create_connection(("127.0.0.1", TLS_PORT), SECONDS_MAX, source_address=(source, 0))
        context = ssl.create_default_context(cafile=AUTHORITY)
        context.set_alpn_protocols(["http/1.1"])
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.stream = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
        lines = {
            "Host": f"localhost:{TLS_PORT}",
            **(upgrade if path == "/ws" else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline() not in (b"\r\n", b""):
            pass

    def send(self, message):
        payload, mask = json.dumps(message).encode(), os.urandom(4)
        assert len(payload) < 126
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + mask + masked)

    def receive(self):
        """The next text message: of events, several may stand in one."""
        while True:
            first, length = self.stream.read(2)
            if length == 126:
                length = int.from_bytes(self.stream.read(2), "big")
            elif length == 127:
                length = int.from_bytes(self.stream.read(8), "big")
            payload = self.stream.read(length)
            if first & 0x0F == 1:
                return payload.decode()


def expect(text, found, wanted):
    if found != wanted:
        sys.exit(f"WRONG {text}: {found}, not {wanted}")
    print(f"ok    {text}")


def metric(name):
    # The page is as old as a second.
    time.sleep(METRICS_SECONDS)
    with urllib.request.urlopen(f"http://127.0.0.1:{GATEWAY_PORT}/metrics", timeout=SECONDS_MAX) as answer:
        values = re.findall(rf"(?m)^{name}(?:{{[^}}]*}})? (\S+)$", answer.read().decode())
    if not values:
        sys.exit(f"WRONG the gateway has no metric {name}")
    return sum(float(value) for value in values)


session = Connection("/ws", "127.0.0.2")
expect("a browser's upgrade over TLS is taken", session.status, 101)
session.send({"type": "subscribe", "data": {"channels": ["*.trade"]}})
acknowledged = json.loads(session.receive())
expect("a subscription is acknowledged", (acknowledged["type"], acknowledged["count"]), ("subscription_ack", 1))
expect("events arrive", '"type":"price:update"' in session.receive(), True)

again = Connection("/ws", "127.0.0.2", X_Forwarded_For="198.51.100.7")
expect("its address is counted, not one that it made up", again.status, 429)
other = Connection("/ws", "127.0.0.3")
expect("another address has a rate of its own, although all come from the proxy", other.status, 101)
expect("the gateway knows both addresses", metric("ws_rate_limit_addresses"), 2)
expect("the gateway believes the proxy", metric("ws_forwarded_headers_ignored_total"), 0)

expect("health is open", Connection("/health/live", "127.0.0.2").status, 200)
for path in ("/metrics", "/", "/wsx"):
    expect(f"{path} is not", Connection(path, "127.0.0.2").status, 404)
