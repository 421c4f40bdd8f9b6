"""Who calls whom: every address that a file of deployments/ names can be reached by the one who calls it.

An address is reached by the name of a service on a network of one's own, or by the address of a host on a port published there.
"""

import json
import re
import unittest

import yaml
from stacks import BACKEND_IP, DEPLOYMENTS, STACKS, all_services, stack

# host:port, in variables, flags and files. Names without a dot, so that no file name is taken for a host.
ADDRESS = re.compile(r"(?<![\w./-])([a-z][a-z0-9-]*|\d+\.\d+\.\d+\.\d+):(\d{2,5})(?![\w.:])")
SELF = ("localhost", "127.0.0.1", "0.0.0.0")


def files_read_by(service):
    """The text files mounted into a service, of folders all of them, each with its path."""
    for source, _ in service.mounts:
        paths = sorted(source.rglob("*")) if source.is_dir() else [source]
        for path in paths:
            if path.is_file() and path.suffix in (".yml", ".yaml", ".alloy", ".json", ".sh"):
                yield path


def addresses_called_by(service):
    """(host, port, where it stands). What a listener or a health check says of itself is no call."""
    flags = [flag for flag in service.body.get("command") or [] if not re.match(r"--(advertise-)?\S*addr=", flag)]
    texts = [(" ".join([*flags, *(service.body.get("entrypoint") or [])]), "command")]
    texts += [(str(value), name) for name, value in service.environment.items() if name != "WS_ADDR"]
    for path in files_read_by(service):
        lines = path.read_text().splitlines()
        texts.append(("\n".join(line for line in lines if not line.lstrip().startswith(("#", "//"))), path.name))
    for text, place in texts:
        for host, port in ADDRESS.findall(text):
            if host not in SELF:
                yield host, int(port), place


def is_reached(caller, host, port):
    """Whether `host:port`, as `caller` writes it, leads to a port that a service listens at."""
    neighbours = caller.stack.services
    if host in neighbours:
        callee = neighbours[host]
        shares_network = bool(caller.networks & callee.networks) and not caller.is_on_host_network
        return shares_network and port in callee.listens
    published = [
        (address, number)
        for each in STACKS
        if each.name in ("backend", "ws-server")
        for service in each.services.values()
        for address, number, _ in service.published
    ]
    if host == BACKEND_IP:
        return (BACKEND_IP, port) in published
    # A name of another host: the instance of that name runs what listens on its network.
    gateway = stack("ws-server").services["gateway"]
    return host == gateway.body["container_name"] and gateway.is_on_host_network and port in gateway.listens


class Calls(unittest.TestCase):
    def test_every_address_that_a_service_calls_can_be_reached_from_where_it_runs(self):
        called = 0
        for service in all_services():
            for host, port, place in addresses_called_by(service):
                with self.subTest(service, place=place, address=f"{host}:{port}"):
                    self.assertTrue(is_reached(service, host, port))
                called += 1
        self.assertGreater(called, 20, "the addresses are written in a way that this test does not see")

    def test_an_address_that_leads_nowhere_is_told_from_one_that_does(self):
        backend = stack("backend").services["prometheus"]
        self.assertTrue(is_reached(backend, "publisher", 3003))
        self.assertTrue(is_reached(backend, "odin-ws-go", 3004))
        self.assertFalse(is_reached(backend, "odin-ws-go", 3002), "where the gateway does not listen")
        self.assertFalse(is_reached(backend, "gateway", 3004), "on another host")
        self.assertFalse(is_reached(stack("ws-server").services["gateway"], "redpanda", 9092), "a name of another host's network")
        self.assertFalse(is_reached(stack("ws-server").services["gateway"], BACKEND_IP, 9091), "published on 127.0.0.1 only")

    def test_a_broker_names_itself_as_its_clients_call_it(self):
        for each in STACKS:
            clients = {"local": ["local", "redpanda alone"], "backend": ["backend", "ws-server"]}.get(each.name, [each.name])
            broker = each.services.get("redpanda")
            if broker is None:
                continue
            advertised = re.search(r"--advertise-kafka-addr=(\S+)", broker.command)[1]
            names = dict(part.split("://") for part in advertised.split(","))
            called = {
                address
                for client in clients
                for service in stack(client).services.values()
                for address in service.environment.get("KAFKA_BROKERS", "").split(",")
                if address
            }
            with self.subTest(each, advertised=names):
                self.assertEqual(called - set(names.values()), set())
        backend = stack("backend").services["redpanda"].command
        self.assertIn(f"external://{BACKEND_IP}:9092", backend)

    def test_prometheus_asks_every_gateway_and_publisher_and_the_broker(self):
        for name in ("local", "single", "backend"):
            prometheus = stack(name).services["prometheus"]
            called = {f"{host}:{port}" for host, port, _ in addresses_called_by(prometheus)}
            gateway = "odin-ws-go:3004" if name == "backend" else "gateway:3002"
            with self.subTest(name):
                self.assertEqual(called, {gateway, "publisher:3003", "redpanda:9644"})

    def test_its_targets_have_no_labels_that_would_keep_series_apart_which_rules_set_against_each_other(self):
        for name in ("local", "backend"):
            for path in files_read_by(stack(name).services["prometheus"]):
                if "rules" not in path.parts:
                    with self.subTest(str(path)):
                        self.assertNotRegex(path.read_text(), r"(?m)^ *labels:")


class Provisioning(unittest.TestCase):
    def test_the_datasources_have_the_names_that_dashboards_use(self):
        for name in ("local", "single", "backend"):
            grafana = stack(name).services["grafana"]
            datasources = {}
            for path in files_read_by(grafana):
                if path.suffix in (".yml", ".yaml") and path.parent.name == "datasources":
                    for source in yaml.safe_load(path.read_text())["datasources"]:
                        datasources[source["uid"]] = source["url"]
            with self.subTest(name):
                self.assertEqual(datasources, {"prometheus": "http://prometheus:9090", "loki": "http://loki:3100"})

    def test_dashboards_are_mounted_where_their_provider_looks(self):
        for name in ("local", "single", "backend"):
            grafana = stack(name).services["grafana"]
            targets = [target for _, target in grafana.mounts]
            folders = [
                provider["options"]["path"]
                for path in files_read_by(grafana)
                if path.suffix in (".yml", ".yaml") and path.parent.name == "dashboards"
                for provider in yaml.safe_load(path.read_text())["providers"]
            ]
            with self.subTest(name):
                self.assertTrue(folders)
                for folder in folders:
                    self.assertTrue(any(folder == target or folder.startswith(target + "/") for target in targets), folder)

    def test_every_dashboard_is_json_with_a_name_of_its_own(self):
        names = [json.loads(path.read_text())["uid"] for path in DEPLOYMENTS.glob("local/grafana/dashboards/**/*.json")]
        self.assertTrue(names)
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
