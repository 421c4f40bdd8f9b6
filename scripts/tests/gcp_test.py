"""Holds what names the hosts on Google Cloud together: gcp-provision.sh, deployments/gcp/terraform, and the compose files.

Needs python-hcl2 and PyYAML. Terraform itself has its providers from a registry and is asked for its format alone, where there is one.
"""

import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import unittest

import hcl2
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "deployments/gcp/terraform"
DISTRIBUTED = ROOT / "deployments/gcp/distributed"
OPERATORS = "203.0.113.7/32"


@functools.cache
def commands(script, *arguments):
    """The words of each gcloud command that the script would run."""
    environment = {"PATH": os.environ["PATH"], "GCP_PROJECT": "odin-test", "OPERATOR_RANGES": OPERATORS}
    command = [ROOT / "scripts" / script, "--dry-run", *arguments]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [words for words in map(shlex.split, output.splitlines()) if words[0] == "gcloud"]


def flags(words):
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)


@functools.cache
def provisioned():
    """What `gcp-provision.sh up` creates: {kind: {name: {flag: value}}}."""
    created = {}
    for words in commands("gcp-provision.sh", "up"):
        if words[3] == "create":
            created.setdefault(words[2], {})[words[4]] = flags(words[5:])
    return created


def granted():
    """The roles that `gcp-provision.sh up` gives: {account: {(what the role is on, role)}}."""
    roles = {}
    for words in commands("gcp-provision.sh", "up"):
        if "add-iam-policy-binding" in words:
            name = words[words.index("add-iam-policy-binding") + 1]
            account = flags(words)["member"].removeprefix("serviceAccount:").split("@")[0]
            roles.setdefault(account, set()).add((name, flags(words)["role"]))
    return roles


def submitted():
    """The build that `gcp-deploy.sh images` submits: its flags, and its substitutions."""
    words = next(words for words in commands("gcp-deploy.sh", "images") if words[1] == "builds")
    return flags(words), dict(pair.split("=", 1) for pair in flags(words)["substitutions"].split(","))


class Module:
    """One folder of .tf files."""

    def __init__(self, folder, values):
        self.folder = folder
        self.text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
        self.parsed = [hcl2.loads(path.read_text()) for path in sorted(folder.glob("*.tf"))]
        self.variables = {name: body for block in self.blocks("variable") for name, body in block.items()}
        self.locals = {name: value for block in self.blocks("locals") for name, value in block.items()}
        self.values = {name: body["default"] for name, body in self.variables.items() if "default" in body} | values

    def blocks(self, kind):
        return [block for file in self.parsed for block in file.get(kind, [])]

    def resources(self, kind):
        return {name: self.resolved(body) for block in self.blocks("resource") if kind in block
                for name, body in block[kind].items()}

    def resolved(self, value):
        """With variables and locals put in; what only Terraform can know stays as it is written."""
        if isinstance(value, dict):
            return {key: self.resolved(it) for key, it in value.items()}
        if isinstance(value, list):
            return [self.resolved(it) for it in value]
        if not isinstance(value, str):
            return value
        whole = re.fullmatch(r"\$\{(var|local)\.(\w+)\}", value)
        if whole:
            return self.value_of(*whole.groups(), value)
        return re.sub(r"\$\{(var|local)\.(\w+)\}", lambda it: str(self.value_of(*it.groups(), it.group())), value)

    def value_of(self, kind, name, otherwise):
        if kind == "var":
            return self.values.get(name, otherwise)
        return self.resolved(self.locals[name])


@functools.cache
def terraform():
    root = Module(TERRAFORM, {"operator_ranges": [OPERATORS], "project": "odin-test"})
    region = next(iter(root.values["regions"]))
    call = root.blocks("module")[0]["gateways"]
    arguments = {name: root.resolved(value) for name, value in call.items()} | {"region": region}
    return root, Module(TERRAFORM / "gateways", arguments)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)?", str(text)).groups()
    return int(number) * {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600}[unit]


def settings(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"[A-Z_]+=", line))


def published(role):
    """The ports of a host that others may reach: {port: service}."""
    compose = yaml.safe_load((DISTRIBUTED / role / "docker-compose.yml").read_text())
    ports = {}
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            address, host, _ = re.fullmatch(r"(?:(.+):)?(\d+):(\d+)", str(port)).groups()
            if address != "127.0.0.1":
                ports[int(host)] = name
        if service.get("network_mode") == "host" and "env_file" in service:
            for file in service["env_file"]:
                ports[int(settings(DISTRIBUTED / role / file)["WS_ADDR"].split(":")[-1])] = name
    return ports


class ScriptAndTerraform(unittest.TestCase):
    """They build the same thing."""

    @classmethod
    def setUpClass(cls):
        cls.script = provisioned()
        cls.root, cls.gateways = terraform()

    def test_the_firewall_rules_are_the_same(self):
        listed = lambda rule, name: sorted(filter(None, rule.get(name, "").split(",")))
        script = {name: (listed(rule, "allow"), listed(rule, "source-ranges"), listed(rule, "source-tags"),
                         listed(rule, "target-tags"), rule["network"]) for name, rule in self.script["firewall-rules"].items()}
        ours = {rule["name"]: (sorted(f"{allow['protocol']}:{port}" for allow in rule["allow"] for port in allow["ports"]),
                               sorted(rule.get("source_ranges", [])), sorted(rule.get("source_tags", [])),
                               sorted(rule["target_tags"]), rule["network"])
                for rule in self.root.resources("google_compute_firewall").values()}
        self.assertEqual(script, ours)

    def test_the_instances_are_the_same(self):
        script = {name: (made["machine-type"], made["boot-disk-size"], made["tags"], made["image-project"], made["image-family"])
                  for name, made in self.script["instances"].items()}
        ours = {}
        for instance in self.root.resources("google_compute_instance").values():
            disk = instance["boot_disk"][0]["initialize_params"][0]
            _, project, _, _, _, family = disk["image"].split("/")
            ours[instance["name"]] = (instance["machine_type"], f"{disk['size']}GB", ",".join(instance["tags"]), project, family)
        template = self.gateways.resources("google_compute_region_instance_template")["gateway"]
        group = self.gateways.resources("google_compute_region_instance_group_manager")["gateways"]
        disk = template["disk"][0]
        _, project, _, _, _, family = disk["source_image"].split("/")
        ours[group["base_instance_name"]] = (template["machine_type"], f"{disk['disk_size_gb']}GB", ",".join(template["tags"]), project, family)
        self.assertEqual(script, ours)

    def test_the_static_addresses_are_the_same(self):
        ours = {address["name"] for address in self.gateways.resources("google_compute_address").values()}
        self.assertEqual(set(self.script["addresses"]), ours)

    def test_they_are_in_the_same_region_and_zone(self):
        script = settings(ROOT / "scripts/gcp.env")
        self.assertEqual(script["GCP_ZONE"], self.root.values["zone"])
        self.assertEqual([script["GCP_REGION"]], list(self.root.values["regions"]))

    def test_hosts_get_the_same_startup_script(self):
        for made in self.script["instances"].values():
            self.assertEqual("startup-script=scripts/gcp/startup.sh", made["metadata-from-file"])
        for instance in self.root.resources("google_compute_instance").values():
            self.assertIn("/scripts/gcp/startup.sh", instance["metadata"]["startup-script"])

    def test_nothing_but_the_gateways_is_open_to_everybody(self):
        open_rules = {name for name, rule in self.script["firewall-rules"].items() if "/0" in rule.get("source-ranges", "")}
        self.assertEqual({"odin-allow-clients"}, open_rules)


class Images(unittest.TestCase):
    """One build, one registry, one name for each image: what Cloud Build makes is what the hosts pull, independent of what made the hosts."""

    @classmethod
    def setUpClass(cls):
        cls.root, cls.gateways = terraform()
        cls.script = provisioned()
        cls.flags, cls.substitutions = submitted()
        cls.build = yaml.safe_load((ROOT / cls.flags["config"]).read_text())

    def filled(self, text):
        return re.sub(r"\$\{(\w+)\}", lambda it: self.substitutions[it.group(1)], text)

    def test_the_registry_is_the_same(self):
        (name, repository), = self.script["repositories"].items()
        ours = self.root.resolved(self.root.blocks("data")[0]["google_artifact_registry_repository"]["images"])
        self.assertEqual((name, repository["location"]), (ours["repository_id"], ours["location"]))
        self.assertEqual("docker", repository["repository-format"])
        self.assertEqual(self.substitutions["_IMAGES"], self.root.resolved("${local.images}"))
        self.assertEqual(self.substitutions["_IMAGES"], f"{repository['location']}-docker.pkg.dev/odin-test/{name}/")

    def test_hosts_act_as_the_same_account_that_may_read_the_images(self):
        account = self.root.resources("google_service_account")["host"]["account_id"]
        self.assertIn(account, self.script["service-accounts"])
        self.assertEqual({("odin", "roles/artifactregistry.reader")}, granted()[account])
        self.assertEqual("roles/artifactregistry.reader", self.root.resources("google_artifact_registry_repository_iam_member")["host"]["role"])
        for name, instance in self.script["instances"].items():
            pulls = name != "odin-loadtest"
            self.assertEqual(f"{account}@odin-test.iam.gserviceaccount.com" if pulls else None, instance.get("service-account"), name)
        backend = self.root.resources("google_compute_instance")["backend"]
        self.assertIn("google_service_account.host.", backend["service_account"][0]["email"])
        self.assertIn("google_service_account.host.", self.root.blocks("module")[0]["gateways"]["service_account"])

    def test_the_account_that_builds_is_there_and_may_build(self):
        account = self.flags["service-account"].split("/")[-1].split("@")[0]
        self.assertIn(account, self.script["service-accounts"])
        self.assertEqual({("odin-test", "roles/cloudbuild.builds.builder")}, granted()[account])
        # With an account of one's own, Cloud Build wants to be told where logs go.
        self.assertEqual("CLOUD_LOGGING_ONLY", self.build["options"]["logging"])

    def test_the_build_makes_each_stage_that_compose_names_under_the_name_that_compose_pulls(self):
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deployments/Dockerfile").read_text(), re.MULTILINE)
        built = {}
        for step in self.build["steps"]:
            values = flags(step["args"])
            self.assertEqual("deployments/Dockerfile", values["file"])
            self.assertIn(values["target"], stages)
            self.assertIn("DOCKER_BUILDKIT=1", step["env"])  # the Dockerfile's caches are BuildKit's
            built[values["target"]] = values["tag"]
        self.assertEqual(set(built.values()), set(self.build["images"]))
        self.assertEqual(set(self.substitutions), set(re.findall(r"\$\{(\w+)\}", "".join(built.values()))))
        for role, service in {"backend": "publisher", "ws-server": "gateway"}.items():
            compose = yaml.safe_load((DISTRIBUTED / role / "docker-compose.yml").read_text())["services"][service]
            image = re.sub(r"\$\{ODIN_IMAGES:-\}", self.substitutions["_IMAGES"], compose["image"])
            image = re.sub(r"\$\{ODIN_TAG:-[^}]*\}", self.substitutions["_TAG"], image)
            self.assertEqual(self.filled(built[compose["build"]["target"]]), image)

    def test_the_builders_version_is_pinned(self):
        for step in self.build["steps"]:
            self.assertRegex(step["name"], r":\d+\.\d+\.\d+$")


class PortsAndCompose(unittest.TestCase):
    """A rule opens what a compose file publishes, and what is published for others is open to somebody."""

    @classmethod
    def setUpClass(cls):
        cls.settings = settings(ROOT / "scripts/gcp.env")
        cls.opened = {}
        for rule in provisioned()["firewall-rules"].values():
            for port in rule["allow"].split(","):
                cls.opened.setdefault(rule["target-tags"], set()).add(int(port.removeprefix("tcp:")))

    def test_every_port_of_the_firewall_is_published(self):
        self.assertEqual(set(), self.opened[self.settings["BACKEND_TAG"]] - set(published("backend")))
        self.assertEqual(set(), self.opened[self.settings["WS_TAG"]] - set(published("ws-server")))

    def test_every_published_port_is_open(self):
        self.assertEqual(set(), set(published("backend")) - self.opened[self.settings["BACKEND_TAG"]])
        self.assertEqual(set(), set(published("ws-server")) - self.opened[self.settings["WS_TAG"]])

    def test_each_port_belongs_to_the_service_that_its_name_says(self):
        services = published("backend") | published("ws-server")
        for name, service in {"WS": "gateway", "PUBLISHER": "publisher", "GRAFANA": "grafana", "CONSOLE": "redpanda-console",
                              "KAFKA": "redpanda", "LOKI": "loki"}.items():
            self.assertEqual(service, services.get(int(self.settings[f"GCP_{name}_PORT"])), name)


class Gateways(unittest.TestCase):
    """The group behind the load balancer lets a gateway do what it promises."""

    @classmethod
    def setUpClass(cls):
        cls.root, cls.gateways = terraform()
        cls.production = settings(DISTRIBUTED / "ws-server/.env.production")
        cls.compose = yaml.safe_load((DISTRIBUTED / "ws-server/docker-compose.yml").read_text())["services"]

    def test_sessions_outlive_the_drain_on_every_way_out(self):
        drain = seconds(self.production["WS_DRAIN"])
        grace = seconds(self.compose["gateway"]["stop_grace_period"])
        service = self.gateways.resources("google_compute_region_backend_service")["gateways"]
        self.assertGreater(service["connection_draining_timeout_sec"], drain)
        startup = (ROOT / "scripts/gcp/startup.sh").read_text()
        docker = int(re.search(r'"shutdown-timeout": (\d+)', startup).group(1))
        self.assertGreaterEqual(docker, grace)
        self.assertLess(docker, 90)  # what Compute Engine leaves a host that stops

    def test_new_sessions_go_where_it_is_ready_and_only_the_dead_are_replaced(self):
        ready = self.gateways.resources("google_compute_region_health_check")["ready"]["http_health_check"][0]
        live = self.gateways.resources("google_compute_health_check")["live"]["http_health_check"][0]
        port = int(self.production["WS_ADDR"].split(":")[-1])
        self.assertEqual((port, "/health/ready"), (ready["port"], ready["request_path"]))
        self.assertEqual((port, "/health/live"), (live["port"], live["request_path"]))
        service = self.gateways.resources("google_compute_region_backend_service")["gateways"]
        self.assertIn("health_check.ready.", service["health_checks"][0])
        group = self.gateways.resources("google_compute_region_instance_group_manager")["gateways"]
        self.assertIn("health_check.live.", group["auto_healing_policies"][0]["health_check"])

    def test_the_load_balancer_passes_packets_through_by_connection(self):
        service = self.gateways.resources("google_compute_region_backend_service")["gateways"]
        rule = self.gateways.resources("google_compute_forwarding_rule")["gateways"]
        self.assertEqual(("EXTERNAL", "TCP", "NONE"), (service["load_balancing_scheme"], service["protocol"], service["session_affinity"]))
        self.assertEqual([int(self.production["WS_ADDR"].split(":")[-1])], rule["ports"])

    def test_it_grows_by_a_metric_that_the_gateway_has_before_a_gateway_is_full(self):
        metric = self.gateways.resources("google_compute_region_autoscaler")["gateways"]["autoscaling_policy"][0]["metric"][0]
        name = re.fullmatch(r"prometheus\.googleapis\.com/(\w+)/gauge", metric["name"]).group(1)
        pages = "".join(page.read_text() for page in (ROOT / "gateway/src/http/metrics").glob("*.rs"))
        self.assertIn(f'gauge("{name}"', pages)
        self.assertLess(metric["single_instance_assignment"], int(self.production["WS_MAX_CONNECTIONS"]))
        # The series that the agent writes carry the job that the filter looks for.
        template = self.gateways.resources("google_compute_region_instance_template")["gateway"]
        self.assertIn(f'resource.labels.job = "{template["metadata"]["odin-job"]}"', metric["filter"].replace('\\"', '"'))

    def test_what_a_host_needs_is_there_and_is_what_compose_reads(self):
        named = re.search(r"files = concat\((.*?)\n  \)", self.root.text, re.S).group(1)
        files = [f"deployments/gcp/distributed/ws-server/{name}" for name in re.search(r"for name in \[(.*?)\]", named).group(1).replace('"', "").split(", ")]
        files += re.search(r'\n    \["(.*?)"\],', named).group(1).split('", "')
        for name in files:
            self.assertTrue((ROOT / name).is_file(), name)
        folder = DISTRIBUTED / "ws-server"
        read = [folder / file for file in self.compose["gateway"]["env_file"]]
        read += [folder / option.split("=", 1)[1] for option in self.compose["gateway"]["security_opt"] if option.startswith("seccomp=")]
        read += [folder / volume.split(":")[0] for service in self.compose.values() for volume in service.get("volumes", []) if volume.startswith("./")]
        self.assertEqual(set(), {os.path.relpath(os.path.normpath(path), ROOT) for path in read} - set(files))

    def test_the_variables_that_compose_wants_are_written(self):
        script = (TERRAFORM / "gateways/start-gateway.sh").read_text()
        text = (DISTRIBUTED / "ws-server/docker-compose.yml").read_text()
        wanted = set(re.findall(r"\$\{(\w+)", text))
        written = set(re.findall(r"([A-Z_]+)=%s", script))
        self.assertEqual(set(), wanted - written)


class Modules(unittest.TestCase):
    """What Terraform would refuse before it asks a provider."""

    def setUp(self):
        self.modules = terraform()

    def test_every_variable_is_declared_described_and_used(self):
        for module in self.modules:
            used = set(re.findall(r"\bvar\.(\w+)", module.text))
            self.assertEqual(set(module.variables), used, module.folder)
            for name, body in module.variables.items():
                self.assertTrue(body.get("description"), f"{module.folder}: {name}")

    def test_a_module_is_called_with_its_variables(self):
        root, gateways = self.modules
        arguments = set(root.blocks("module")[0]["gateways"]) - {"source", "for_each", "depends_on"}
        self.assertEqual(set(gateways.variables), arguments)

    def test_every_reference_names_something(self):
        for module in self.modules:
            declared = {f"{kind}.{name}" for block in module.blocks("resource") for kind, bodies in block.items() for name in bodies}
            named = set(re.findall(r"(?<!data\.)\b(google_\w+\.\w+)", re.sub(r"#.*", "", module.text)))
            self.assertEqual(set(), named - declared, module.folder)
            names = {name for block in module.blocks("locals") for name in block}
            self.assertEqual(set(), set(re.findall(r"\blocal\.(\w+)", module.text)) - names, module.folder)

    def test_the_example_sets_what_has_no_default(self):
        root, _ = self.modules
        example = hcl2.loads((TERRAFORM / "terraform.tfvars.example").read_text())
        self.assertEqual(set(), {name for name, body in root.variables.items() if "default" not in body} - set(example))
        self.assertEqual(set(), set(example) - set(root.variables))

    def test_the_files_are_as_terraform_writes_them(self):
        program = shutil.which("terraform") or shutil.which("tofu")
        if program is None:
            self.skipTest("neither terraform nor tofu is on this machine")
        environment = dict(os.environ, TF_CLI_CONFIG_FILE=os.devnull, CHECKPOINT_DISABLE="1")
        result = subprocess.run([program, "fmt", "-check", "-recursive", "-diff"], cwd=TERRAFORM, capture_output=True, text=True, env=environment)
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
