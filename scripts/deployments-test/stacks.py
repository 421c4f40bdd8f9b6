"""The stacks of deployments/ as Docker Compose resolves them: overlays merged, variables put in, env files read.

Reads; starts nothing, needs no engine. Everything else of these tests asks here.
"""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
DEPLOYMENTS = TOP / "deployments"
COMPOSE = os.environ["ODIN_COMPOSE"].split()

# Stand-ins for what a host's .env holds.
BACKEND_IP = "10.128.0.2"
BACKEND_VARIABLES = {"BACKEND_INTERNAL_IP": BACKEND_IP, "GF_SECURITY_ADMIN_PASSWORD": "chosen"}
LOCAL_VARIABLES = {"GF_SECURITY_ADMIN_PASSWORD": "chosen"}

LOCAL = "local/docker-compose.yml"
REDPANDA = "local/docker-compose.redpanda.yml"
SINGLE = "gcp/single/docker-compose.yml"
BACKEND = "gcp/distributed/backend/docker-compose.yml"
WS_SERVER = "gcp/distributed/ws-server/docker-compose.yml"


class Stack:
    """One `docker compose` command: the files that it is given, and the variables that it needs."""

    def __init__(self, name, files, variables):
        self.name, self.files, self.variables = name, files, variables

    def __repr__(self):
        return self.name

    def run(self, variables, *arguments):
        """The command with these variables and no others from outside."""
        files = [part for file in self.files for part in ("-f", DEPLOYMENTS / file)]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables}
        command = [*COMPOSE, *files, "--env-file", "/dev/null", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    @functools.cached_property
    def config(self):
        result = self.run(self.variables, "config", "--format", "json")
        if result.returncode != 0:
            raise AssertionError(f"{self.name}: {result.stderr}")
        return json.loads(result.stdout)

    @functools.cached_property
    def services(self):
        """Those that start by themselves: a service of a profile does not count."""
        return {name: Service(self, name, body) for name, body in self.config["services"].items() if "profiles" not in body}


class Service:
    """A service of a stack."""

    def __init__(self, stack, name, body):
        self.stack, self.name, self.body = stack, name, body

    def __repr__(self):
        return f"{self.stack}/{self.name}"

    @property
    def environment(self):
        return self.body.get("environment") or {}

    @property
    def command(self):
        return " ".join(self.body.get("command") or [])

    @property
    def limits(self):
        return self.body.get("deploy", {}).get("resources", {}).get("limits", {})

    @property
    def mounts(self):
        """(file or folder of the host, path in the container) of each bind mount."""
        volumes = self.body.get("volumes", [])
        return [(Path(volume["source"]), volume["target"]) for volume in volumes if volume["type"] == "bind"]

    @property
    def published(self):
        """(address of the host, port of the host, port of the container)."""
        return [(port.get("host_ip"), int(port["published"]), port["target"]) for port in self.body.get("ports", [])]

    @property
    def networks(self):
        return set(self.body.get("networks") or {})

    @property
    def is_on_host_network(self):
        return self.body.get("network_mode") == "host"

    @property
    def is_ours(self):
        return self.name in ("gateway", "publisher")

    @property
    def listens(self):
        """The ports that the program listens at, from what configures it, or as its image is known to."""
        if self.name == "gateway":
            return {int(self.environment["WS_ADDR"].rpartition(":")[2])}
        if self.name == "publisher":
            return {int(self.environment["API_PORT"])}
        if self.name == "redpanda":
            addresses = re.findall(r"--(?:kafka|pandaproxy|schema-registry)-addr=(\S+)", self.command)
            ports = {int(port) for address in addresses for port in re.findall(r":(\d+)", address)}
            return ports | {9644}
        if self.name == "redpanda-console":
            return {int(self.environment["SERVER_LISTENPORT"])}
        if self.name == "alloy":
            return {int(re.search(r"--server.http.listen-addr=\S+:(\d+)", self.command)[1])}
        return {"prometheus": {9090}, "grafana": {3000}, "loki": {3100}}.get(self.name, set())


STACKS = [
    Stack("local", [LOCAL], LOCAL_VARIABLES),
    Stack("redpanda alone", [REDPANDA], {}),
    Stack("single", [LOCAL, SINGLE], LOCAL_VARIABLES),
    Stack("backend", [BACKEND], BACKEND_VARIABLES),
    Stack("ws-server", [WS_SERVER], {"BACKEND_INTERNAL_IP": BACKEND_IP}),
]


def stack(name):
    return next(stack for stack in STACKS if stack.name == name)


def all_services():
    return [service for stack in STACKS for service in stack.services.values()]


def seconds(duration):
    """Compose's and the gateway's durations: 1m30s, 500ms, 40s."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    parts = re.findall(r"([\d.]+)(ms|s|m|h)", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return sum(float(number) * units[unit] for number, unit in parts)


def bytes_of(text):
    """The gateway's sizes: 320MiB, 15032385536."""
    number, unit = re.fullmatch(r"(\d+)(KiB|MiB|GiB)?", text).groups()
    return int(number) * {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
