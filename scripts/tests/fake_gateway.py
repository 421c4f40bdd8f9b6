#!/usr/bin/env python3
"""In the gateway's place for twelve-thousand.sh: refuses requests, answers /health and /metrics, has SESSIONS sessions until the file ENDED is there.

FAULT is what it does wrong: `uncounted` counts no dropped line, `stuck` does not end when told. Standard error has its pid. Every line of its log is lost.
"""

import os
import signal
import socket
import sys

fault = os.environ.get("FAULT", "")
if fault == "stuck":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print(os.getpid(), file=sys.stderr, flush=True)
host, port = os.environ["WS_ADDR"].split(":")
server = socket.create_server((host, int(port)), backlog=128)
refused = 0
while True:
    connection, _ = server.accept()
    path = connection.recv(4096).split()[1]
    status, body = "200 OK", ""
    if path == b"/ws":
        status, refused = "426 Upgrade Required", refused + 1
    elif path == b"/metrics":
        ended = int(os.environ["SESSIONS"]) if os.path.exists(os.environ["ENDED"]) else 0
        body = f"""ws_log_lines_dropped_total {0 if fault == "uncounted" else refused + ended}
ws_http_requests_total{{shard="0",route="refused"}} {refused}
ws_connections_active{{shard="0"}} {int(os.environ["SESSIONS"]) - ended}
ws_disconnects_total{{shard="0",reason="client_closed"}} {ended}
"""
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    connection.close()
