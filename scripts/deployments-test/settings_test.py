"""The settings: every variable that a file sets is one that its program knows, with a value that it takes."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from stacks import DEPLOYMENTS, TOP, all_services, stack

HOUR_MS = 3_600_000


def gateway_variables():
    text = (TOP / "gateway/src/config/table.rs").read_text()
    return set(re.findall(r'^    ([A-Z][A-Z_]+) = "', text, re.MULTILINE))


def publisher_variables():
    text = (TOP / "publisher/src/settings.rs").read_text()
    return set(re.findall(r'env = "([A-Z_]+)"', text))


def program(name):
    """The newest build of a program, or None."""
    built = [path for path in TOP.glob(f"target/*/{name}") if os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class Variables(unittest.TestCase):
    def test_the_programs_know_every_variable_that_they_are_given(self):
        known = {"gateway": gateway_variables(), "publisher": publisher_variables()}
        self.assertIn("WS_DRAIN", known["gateway"])
        self.assertIn("API_PORT", known["publisher"])
        for service in all_services():
            if service.is_ours:
                with self.subTest(service):
                    self.assertEqual(set(service.environment) - known[service.name], set())

    def test_the_gateway_takes_every_value_without_a_warning(self):
        gateway = program("odin-gateway")
        if gateway is None:
            self.skipTest("no target/*/odin-gateway: cargo build -p gateway")
        for service in all_services():
            if service.name == "gateway":
                # Fewer CPUs here than there are no fault of the file.
                environment = {**service.environment, "WS_PINNING": "off"}
                result = subprocess.run([gateway, "--check-config"], env=environment, capture_output=True, text=True)
                with self.subTest(service):
                    self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_the_publisher_takes_every_value(self):
        publisher = program("odin-publisher")
        if publisher is None:
            self.skipTest("no target/*/odin-publisher: cargo build -p publisher")
        for service in all_services():
            if service.name == "publisher":
                with self.subTest(service):
                    # Its port is not ours to take, and a taken one comes after the settings: exit 1, not 64.
                    flags = ["--host", "192.0.2.1", "--kafka-brokers", "127.0.0.1:1"]
                    result = subprocess.run([publisher, *flags], env=service.environment, capture_output=True, text=True)
                    self.assertEqual(result.returncode, 1, result.stderr)

    def test_production_has_the_values_that_were_planned_for_it(self):
        gateway = stack("ws-server").services["gateway"]
        planned = {
            "ENVIRONMENT": "production",
            "WS_ADDR": ":3004",
            "WS_CPU_LIMIT": "1",
            "WS_MAX_CONNECTIONS": "12000",
            "WS_MAX_CONNECTIONS_PER_IP": "600",
            "WS_MAX_BROADCAST_RATE": "25",
            "WS_CPU_REJECT_THRESHOLD": "75.0",
            "WS_CPU_PAUSE_THRESHOLD": "80.0",
            "KAFKA_GROUP_ID": "ws-server-production",
            "LOG_LEVEL": "info",
            "LOG_FORMAT": "json",
        }
        self.assertEqual({name: gateway.environment.get(name) for name in planned}, planned)
        self.assertEqual(int(gateway.limits["memory"]), 14848 << 20)
        self.assertEqual(gateway.body["ulimits"]["nofile"], {"soft": 200000, "hard": 200000})
        self.assertTrue(gateway.is_on_host_network)


class Topics(unittest.TestCase):
    """Runs prepare-redpanda.sh with an `rpk` that writes down what it was asked."""

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record"
            rpk = Path(folder) / "rpk"
            rpk.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>{record}\n')
            rpk.chmod(0o755)
            script = DEPLOYMENTS / "local/prepare-redpanda.sh"
            environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
            subprocess.run(["bash", script, "broker:1", "admin:2"], env=environment, check=True)
            cls.calls = record.read_text().splitlines()

    def of(self, action):
        """Topic -> its settings, of the calls that begin so."""
        found = {}
        for call in self.calls:
            if match := re.match(rf"topic {action} (\S+) --brokers broker:1 ", call):
                found[match[1]] = dict(re.findall(r"--(?:topic-config|set) ([\w.]+)=(\S+)", call))
        return found

    def test_they_are_those_that_the_gateway_reads(self):
        default = re.search(r'KAFKA_TOPICS = "([^"]+)"', (TOP / "gateway/src/config/table.rs").read_text())[1]
        self.assertEqual(list(self.of("create")), default.split(","))
        self.assertEqual(stack("ws-server").services["gateway"].environment["KAFKA_TOPICS"], default)

    def test_they_are_kept_for_as_long_as_clients_may_be_away_and_bounded_in_bytes(self):
        for topic, settings in self.of("create").items():
            with self.subTest(topic):
                self.assertGreaterEqual(int(settings["retention.ms"]), HOUR_MS)
                self.assertLess(int(settings["segment.ms"]), HOUR_MS)
                self.assertGreater(int(settings["retention.bytes"]), 0)
                self.assertEqual(settings["cleanup.policy"], "delete")
                self.assertEqual(settings["compression.type"], "snappy")
                self.assertEqual(int(settings["max.message.bytes"]), 1 << 20)

    def test_their_partitions_fit_the_disk_of_the_backend(self):
        bytes_max = sum(12 * int(settings["retention.bytes"]) for settings in self.of("create").values())
        self.assertLessEqual(bytes_max, 12 << 30)

    def test_a_second_start_changes_settings_and_never_the_number_of_partitions(self):
        created = [call for call in self.calls if call.startswith("topic create")]
        self.assertTrue(all("--if-not-exists" in call and "--partitions 12 --replicas 1" in call for call in created))
        self.assertEqual(self.of("alter-config"), self.of("create"))
        self.assertFalse([call for call in self.calls if "add-partitions" in call or "delete" in call.split("--")[0]])

    def test_a_broker_for_development_costs_no_latency_and_makes_no_topic_by_itself(self):
        self.assertIn("cluster config set fetch_reads_debounce_timeout 1 -X admin.hosts=admin:2", self.calls)
        self.assertIn("cluster config set auto_create_topics_enabled false -X admin.hosts=admin:2", self.calls)


if __name__ == "__main__":
    unittest.main()
