"""What the compose files say: that they resolve, fit their machines, and find what they name."""

import json
import re
import unittest

from stacks import BACKEND_IP, DEPLOYMENTS, STACKS, TOP, all_services, bytes_of, seconds, stack

MIB = 1 << 20

# Machine, its CPUs and MiB, and the MiB that are left to the kernel, Docker and SSH.
MACHINES = {
    "local": ("a machine with 4 CPUs and 8 GiB", 4, 8192, 1024),
    "single": ("e2-small", 2, 2048, 320),
    "backend": ("e2-medium", 2, 4096, 512),
    "ws-server": ("e2-standard-4", 4, 16384, 1024),
}

# Who may be called from anywhere, on which port of the host: traders.
OPEN_TO_THE_WORLD = {("single", "gateway", 3004)}

DOCKER_SOCKET = "/var/run/docker.sock"

# The most that logs may take of a host's disk, in MiB.
LOGS_MIB_MAX = 2048

# Files that each shard opens beside its connections; the gateway's preflight asks for as many.
LIMITS = (TOP / "gateway/src/limits/mod.rs").read_text()
DESCRIPTORS_BESIDE_CONNECTIONS = sum(
    int(re.search(rf"(?m)^pub const {name}: usize = (\d+);", LIMITS)[1]) for name in ("SOCKETS_SPARE", "DESCRIPTORS_SPARE")
)


class Resolving(unittest.TestCase):
    def test_every_stack_resolves_with_the_variables_that_its_readme_names(self):
        for each in STACKS:
            with self.subTest(each):
                self.assertTrue(each.services)

    def test_a_variable_without_a_sane_default_is_asked_for_by_name(self):
        for each in STACKS:
            for missing in each.variables:
                with self.subTest(each, missing=missing):
                    variables = {name: value for name, value in each.variables.items() if name != missing}
                    result = each.run(variables, "config")
                    self.assertNotEqual(result.returncode, 0)
                    self.assertIn(missing, result.stderr)

    def test_the_example_of_an_env_file_leaves_nothing_but_the_password_to_choose(self):
        example = (DEPLOYMENTS / "local/.env.local.example").read_text()
        values = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
        self.assertEqual([name for name, value in values.items() if not value], ["GF_SECURITY_ADMIN_PASSWORD"])
        compose = (DEPLOYMENTS / "local/docker-compose.yml").read_text()
        for name in values:
            self.assertIn("${" + name, compose, "the file that the example is for does not read it")
        self.assertNotEqual(stack("local").run(values, "config").returncode, 0)
        self.assertEqual(stack("local").run({**values, "GF_SECURITY_ADMIN_PASSWORD": "chosen"}, "config").returncode, 0)

    def test_up_wait_ends_although_a_service_has_ended(self):
        """Compose waits for the end of a service, and not for its health, only where another one depends on its end."""
        for each in STACKS:
            waited_for = {
                name
                for service in each.services.values()
                for name, dependency in service.body.get("depends_on", {}).items()
                if dependency["condition"] == "service_completed_successfully"
            }
            ending = {name for name, service in each.services.items() if service.body["restart"] == "no"}
            with self.subTest(each):
                self.assertEqual(ending, waited_for)


class Budgets(unittest.TestCase):
    def test_every_service_has_limits_of_cpu_and_memory(self):
        for service in all_services():
            with self.subTest(service):
                self.assertEqual(set(service.limits), {"cpus", "memory"})

    def test_what_the_services_of_a_host_may_take_together_fits_its_machine(self):
        for name, (machine, cpus, mib, mib_left) in MACHINES.items():
            limits = [service.limits for service in stack(name).services.values()]
            with self.subTest(name, machine=machine):
                self.assertLessEqual(round(sum(float(limit["cpus"]) for limit in limits), 3), cpus)
                self.assertLessEqual(sum(int(limit["memory"]) for limit in limits) // MIB, mib - mib_left)

    def test_the_broker_keeps_within_its_container(self):
        for service in all_services():
            if service.name == "redpanda":
                amount, unit = re.search(r"--memory=(\d+)([MG])", service.command).groups()
                with self.subTest(service):
                    own = int(amount) * (MIB if unit == "M" else 1024 * MIB)
                    self.assertLess(own, int(service.limits["memory"]))

    def test_the_sums_that_the_texts_name_are_those_of_the_files(self):
        for name, text in (("single", "gcp/single/README.md"), ("backend", "gcp/distributed/README.md"), ("ws-server", "gcp/distributed/README.md")):
            limits = [service.limits for service in stack(name).services.values()]
            cpus = sum(float(limit["cpus"]) for limit in limits)
            mib = sum(int(limit["memory"]) for limit in limits) // MIB
            _, cpus_max, mib_max, _ = MACHINES[name]
            with self.subTest(name):
                words = " ".join((DEPLOYMENTS / text).read_text().split())
                self.assertIn(f"{cpus:.1f} of {cpus_max}", words)
                self.assertIn(f"{mib} of {mib_max} MiB", words)


class Files(unittest.TestCase):
    def test_every_mounted_file_and_folder_exists(self):
        for service in all_services():
            for source, _ in service.mounts:
                with self.subTest(service, source=str(source)):
                    self.assertTrue(str(source) == DOCKER_SOCKET or source.exists())

    def test_what_is_mounted_from_the_repository_is_not_written_to(self):
        for service in all_services():
            for volume in service.body.get("volumes", []):
                with self.subTest(service, volume=volume):
                    self.assertTrue(volume["type"] == "volume" or volume.get("read_only"))

    def test_every_image_names_its_version(self):
        for service in all_services():
            with self.subTest(service, image=service.body["image"]):
                self.assertRegex(service.body["image"], r"^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?$")

    def test_our_images_have_the_version_of_the_workspace(self):
        version = re.search(r'^version = "(.+)"', (TOP / "Cargo.toml").read_text(), re.MULTILINE)[1]
        for service in all_services():
            if service.is_ours:
                with self.subTest(service):
                    self.assertEqual(service.body["image"], f"odin-{service.name}:{version}")

    def test_ours_alone_come_from_the_registry_and_with_the_tag_that_the_variables_name(self):
        registry = {"ODIN_IMAGES": "registry.example/odin/", "ODIN_TAG": "0a1b2c3d4e5f"}
        for each in STACKS:
            result = each.run({**each.variables, **registry}, "config", "--format", "json")
            for name, body in json.loads(result.stdout)["services"].items():
                if name in each.services:
                    service = each.services[name]
                    expected = f"registry.example/odin/odin-{name}:0a1b2c3d4e5f" if service.is_ours else service.body["image"]
                    with self.subTest(service):
                        self.assertEqual(expected, body["image"])

    def test_builds_begin_at_the_top_of_the_repository_with_a_target_that_exists(self):
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (DEPLOYMENTS / "Dockerfile").read_text(), re.MULTILINE)
        for service in all_services():
            if service.is_ours:
                build = service.body["build"]
                with self.subTest(service):
                    self.assertEqual(build["context"], str(TOP))
                    self.assertEqual(build["dockerfile"], "deployments/Dockerfile")
                    self.assertEqual(build["target"], service.name)
                    self.assertIn(service.name, stages)


class Logs(unittest.TestCase):
    def test_every_service_of_every_file_bounds_its_log_whatever_the_daemon_is_set_to(self):
        for service in all_services():
            with self.subTest(service):
                options = service.body.get("logging", {}).get("options", {})
                self.assertRegex(options.get("max-size", ""), r"^[1-9]\d*m$")
                self.assertRegex(options.get("max-file", ""), r"^[1-9]\d*$")

    def test_the_logs_of_a_host_have_room_on_its_disk(self):
        for each in STACKS:
            options = [service.body["logging"]["options"] for service in each.services.values()]
            with self.subTest(each):
                self.assertLessEqual(sum(int(option["max-size"][:-1]) * int(option["max-file"]) for option in options), LOGS_MIB_MAX)

    def test_alloy_can_read_every_log_back(self):
        """It asks Docker for them, over its socket, and Docker has those that a driver of its own wrote to the host's disk."""
        self.assertIn('loki.source.docker "odin"', (DEPLOYMENTS / "local/config.alloy").read_text())
        for service in all_services():
            with self.subTest(service):
                self.assertIn(service.body.get("logging", {}).get("driver"), ("json-file", "local"))
            if service.name == "alloy":
                self.assertIn(DOCKER_SOCKET, [str(source) for source, _ in service.mounts])


class Ports(unittest.TestCase):
    def test_nothing_is_published_on_all_addresses_but_what_is_open_to_the_world(self):
        found = set()
        for service in all_services():
            for address, port, _ in service.published:
                if address in (None, "", "0.0.0.0", "::"):
                    found.add((service.stack.name, service.name, port))
                else:
                    self.assertIn(address, ("127.0.0.1", BACKEND_IP), service)
        self.assertEqual(found, OPEN_TO_THE_WORLD)
        on_host_network = [str(service) for service in all_services() if service.is_on_host_network]
        self.assertEqual(on_host_network, ["ws-server/gateway"])

    def test_a_published_port_leads_to_one_that_the_service_listens_at(self):
        for service in all_services():
            for _, _, target in service.published:
                with self.subTest(service, target=target):
                    self.assertIn(target, service.listens)

    def test_no_two_services_of_a_host_ask_for_one_port(self):
        for each in STACKS:
            taken = [port for service in each.services.values() for _, port, _ in service.published]
            with self.subTest(each):
                self.assertEqual(len(taken), len(set(taken)))

    def test_health_checks_ask_the_port_that_their_service_listens_at(self):
        for service in all_services():
            check = " ".join(service.body.get("healthcheck", {}).get("test", []))
            for port in re.findall(r"(?:127\.0\.0\.1:|health-check )(\d+)", check):
                with self.subTest(service, check=check):
                    self.assertIn(int(port), service.listens)
            if service.is_ours:
                self.assertIn("health-check", check)


class TheGateway(unittest.TestCase):
    def gateways(self):
        found = [service for service in all_services() if service.name == "gateway"]
        self.assertEqual([str(service) for service in found], ["local/gateway", "single/gateway", "ws-server/gateway"])
        return found

    def test_it_has_more_time_to_end_than_its_drain_takes(self):
        for gateway in self.gateways():
            drain = gateway.environment.get("WS_DRAIN")
            with self.subTest(gateway, drain=drain):
                self.assertIsNotNone(drain)
                # Clients that do not answer their close are waited for.
                self.assertGreater(seconds(gateway.body["stop_grace_period"]), seconds(drain) + 5)

    def test_it_refuses_sessions_before_its_container_is_out_of_memory(self):
        for gateway in self.gateways():
            with self.subTest(gateway):
                limit = bytes_of(gateway.environment["WS_MEMORY_LIMIT"])
                # docs/OPERATING.md: a tenth more, for what those inside take after.
                self.assertLessEqual(limit * 11 // 10, int(gateway.limits["memory"]))

    def test_it_counts_on_the_cores_that_its_container_has(self):
        for gateway in self.gateways():
            with self.subTest(gateway):
                self.assertLessEqual(float(gateway.environment["WS_CPU_LIMIT"]), float(gateway.limits["cpus"]))
                self.assertLessEqual(int(gateway.environment.get("WS_SHARDS", 1)), float(gateway.limits["cpus"]))

    def test_what_the_texts_say_of_its_quota_is_what_the_file_has(self):
        text = " ".join((TOP / "docs/OPERATING.md").read_text().split())
        gateway = stack("ws-server").services["gateway"]
        limit = gateway.environment["WS_CPU_LIMIT"]
        self.assertIn(f'has `cpus: "{gateway.limits["cpus"]:.1f}"` for its one shard, and `WS_CPU_LIMIT={limit}`', text)
        self.assertEqual(gateway.environment["WS_SHARDS"], "1")
        # The remedy at CpuThrottled: in the runbook, in the deployment's own text, and with the alert.
        self.assertIn(f'`cpus: "{int(gateway.environment["WS_SHARDS"]) + 0.5}"` in `docker-compose.yml`', text)
        deployment = " ".join((DEPLOYMENTS / "gcp/distributed/README.md").read_text().split())
        self.assertIn(f"raise `cpus` to {int(gateway.environment['WS_SHARDS']) + 0.5} and leave `WS_CPU_LIMIT`", deployment)
        self.assertIn("half a core above the number of shards", (DEPLOYMENTS / "local/prometheus/rules/odin-alerts.yml").read_text())

    def test_it_may_open_a_file_for_each_connection_and_lock_its_rings(self):
        for gateway in self.gateways():
            needed = int(gateway.environment["WS_MAX_CONNECTIONS"]) + DESCRIPTORS_BESIDE_CONNECTIONS
            with self.subTest(gateway):
                self.assertGreaterEqual(gateway.body["ulimits"]["nofile"]["hard"], needed)
                self.assertEqual(gateway.body["ulimits"]["memlock"], {"soft": -1, "hard": -1})

    def test_in_production_one_address_cannot_take_all_its_places(self):
        production = [gateway for gateway in self.gateways() if gateway.environment["ENVIRONMENT"].startswith("production")]
        self.assertGreaterEqual(len(production), 2)
        for gateway in production:
            with self.subTest(gateway):
                of_one_address = int(gateway.environment["WS_MAX_CONNECTIONS_PER_IP"])
                self.assertTrue(50 <= of_one_address <= int(gateway.environment["WS_MAX_CONNECTIONS"]) // 10)

    def test_its_profile_lets_io_uring_through_and_nothing_else_is_given_away(self):
        for gateway in self.gateways():
            options = gateway.body["security_opt"]
            profile = next(option for option in options if option.startswith("seccomp=")).partition("=")[2]
            first_file = DEPLOYMENTS / gateway.stack.files[0]
            with self.subTest(gateway):
                self.assertEqual((first_file.parent / profile).resolve(), DEPLOYMENTS / "seccomp/odin-gateway.json")
                self.assertIn("no-new-privileges:true", options)
                self.assertEqual(gateway.body["cap_drop"], ["ALL"])
                self.assertNotIn("privileged", gateway.body)
                self.assertTrue(gateway.body["read_only"])


if __name__ == "__main__":
    unittest.main()
