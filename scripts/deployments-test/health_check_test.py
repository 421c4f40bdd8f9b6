"""The health check of the images: what it makes of answers, and of none."""

import subprocess
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer

from stacks import DEPLOYMENTS

HEALTH_CHECK = DEPLOYMENTS / "health-check"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = {"/health/ready": (200, b"{}"), "/redirect": (302, b"elsewhere")}.get(self.path, (503, b'{"reason":"draining"}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def check(port, path):
    return subprocess.run([HEALTH_CHECK, str(port), path], capture_output=True, text=True, timeout=10)


class HealthCheck(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = HTTPServer(("127.0.0.1", 0), Answers)
        cls.port = cls.server.server_port
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def test_200_is_healthy_and_nothing_is_said(self):
        result = check(self.port, "/health/ready")
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_any_other_status_is_unhealthy_and_shown_with_its_reason(self):
        result = check(self.port, "/health")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout.strip(), 'HTTP/1.0 503 Service Unavailable: {"reason":"draining"}')
        self.assertEqual(check(self.port, "/redirect").returncode, 1)

    def test_a_port_where_nothing_listens_is_unhealthy(self):
        other = HTTPServer(("127.0.0.1", 0), Answers)
        port = other.server_port
        other.server_close()
        result = check(port, "/health")
        self.assertEqual((result.returncode, result.stdout.strip()), (1, f"nothing listens on port {port}"))

    def test_without_a_port_it_says_how_it_is_used(self):
        result = subprocess.run([HEALTH_CHECK], capture_output=True, text=True)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("usage: health-check PORT PATH", result.stderr)


if __name__ == "__main__":
    unittest.main()
