"""Makes a gateway log under load, and asks it what became of the lines, for twelve-thousand.sh. Python's own library only.

    watch.py fill PORT LOG                     more lines than the gateway keeps, before there are sessions
    watch.py hold PORT LOG SESSIONS SECONDS    some lines every few seconds, until SIGTERM
    watch.py end PORT LOG                      the lines of the sessions that ended; prints how many were dropped in all

LOG is what becomes of the gateway's log: read, unread, full or closed. Requests that are refused make the lines, one each, and
so does the end of a session, at LOG_LEVEL=debug. Ends with 1 when a request is not answered, when a line that was written counts
as dropped, or when one that could not be written does not. `hold` prints what it saw, and fails if it had too few looks at all the
SESSIONS for SECONDS.
"""

import re
import signal
import socket
import sys
import time
import urllib.request

# A queue of 1 MiB and a pipe of 64 KiB take some 5,800 lines.
FILL_LINES = 8_000
HOLD_LINES = 100
HOLD_PAUSE_S = 2
# A look takes three seconds, and longer on a crowded machine.
SECONDS_PER_LOOK_MAX = 12
ANSWER_SECONDS_MAX = 20
PAGE_SECONDS_MAX = 20
# Not the sessions' address, whose ports they need.
SOURCE = ("127.0.0.9", 0)

MODE, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def fail(text):
    sys.exit(f"WRONG {text}")


def refused_request():
    with socket.create_connection(("127.0.0.1", PORT), ANSWER_SECONDS_MAX, source_address=SOURCE) as connection:
        connection.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status = connection.makefile("rb").readline()
    if b" 426 " not in status:
        fail(f"a request that is no handshake was answered with {status}")


class Page:
    """The counters that matter here, of one look at /metrics."""

    def __init__(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=ANSWER_SECONDS_MAX) as answer:
            self.text = answer.read().decode()
        self.dropped = self.sum("ws_log_lines_dropped_total")
        self.refused = self.sum("ws_http_requests_total", '[^}]*route="refused"')
        self.sessions = self.sum("ws_connections_active")
        self.ended = self.sum("ws_disconnects_total")

    def sum(self, name, labels=""):
        values = re.findall(rf"(?m)^{name}(?:{{{labels}[^}}]*}})? (\S+)$", self.text)
        if not values:
            fail(f"the gateway has no metric {name}")
        return int(sum(float(value) for value in values))


def page_that(holds):
    """The first page of which this holds, else the last one: pages are as old as a second, and the log's thread takes its time."""
    end = time.monotonic() + PAGE_SECONDS_MAX
    while True:
        page = Page()
        if holds(page) or time.monotonic() > end:
            return page
        time.sleep(0.2)


def lines(count, before):
    """That many more lines since that page; the page that knows of them."""
    for _ in range(count):
        refused_request()
    page = page_that(lambda page: page.refused >= before.refused + count)
    if page.refused < before.refused + count:
        fail(f"{count} requests were refused, {page.refused - before.refused} are counted")
    return page


def fill():
    before = Page()
    after = lines(FILL_LINES, before)
    if LOG == "read":
        wanted, holds = "none is dropped", after.dropped == 0
    else:
        wanted, expected = ("some are dropped", 1) if LOG == "unread" else ("all are dropped", before.dropped + FILL_LINES)
        after = page_that(lambda page: page.dropped >= expected)
        holds = after.dropped >= expected
    if not holds:
        fail(f"of {FILL_LINES} lines {after.dropped - before.dropped} count as dropped: {wanted} when the log is {LOG}")
    print(f"{FILL_LINES} lines before the sessions: {after.dropped} dropped")


def hold(sessions_wanted, seconds):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(report()))
    looks, dropped, made = 0, 0, 0

    def report():
        print(f"{looks} looks while there were {sessions_wanted} sessions: {made} lines of refused requests, {dropped} lines dropped")
        if looks < max(1, seconds // SECONDS_PER_LOOK_MAX):
            print(f"WRONG {looks} looks are too few")
            return 1
        return 0

    page = Page()
    while True:
        before = page
        page = lines(HOLD_LINES, before)
        expected = before.dropped if LOG == "read" else before.dropped + HOLD_LINES
        if LOG != "read":
            page = page_that(lambda page: page.dropped >= expected)
        if before.sessions == page.sessions == sessions_wanted:
            looks, made = looks + 1, made + HOLD_LINES
            dropped += page.dropped - before.dropped
            if LOG == "read" and page.dropped > expected:
                fail(f"{page.dropped - expected} lines are dropped although the log is read")
        if page.dropped < expected:
            fail(f"of {HOLD_LINES} lines {page.dropped - before.dropped} count as dropped: all are when the log is {LOG}")
        time.sleep(HOLD_PAUSE_S)


def end():
    page = page_that(lambda page: page.sessions == 0)
    if page.sessions != 0:
        fail(f"{page.sessions} sessions are left")
    # What is read may be dropped too when thousands of sessions end in one moment.
    if LOG in ("full", "closed"):
        page = page_that(lambda page: page.dropped >= page.refused + page.ended)
        if page.dropped < page.refused + page.ended:
            fail(f"{page.refused} requests were refused, {page.ended} sessions ended, {page.dropped} lines count as dropped")
    elif LOG == "unread" and page.dropped == 0:
        fail("no line counts as dropped")
    print(page.dropped)


if MODE == "fill":
    fill()
elif MODE == "end":
    end()
else:
    hold(int(sys.argv[4]), int(sys.argv[5]))
