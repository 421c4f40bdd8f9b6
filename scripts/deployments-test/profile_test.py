"""The seccomp profile: Docker's default with io_uring, and the real gateway behind it.

A filter is made of the profile's rules as Docker makes it for a container without capabilities, and put before the program:
another user, no capabilities, no new privileges.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from settings_test import program
from stacks import DEPLOYMENTS, TOP

try:
    import pyseccomp
except (ImportError, RuntimeError, OSError) as error:  # its library is the system's
    pyseccomp = None
    unavailable = str(error)

PROFILE = DEPLOYMENTS / "seccomp/odin-gateway.json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER = 10001
SECONDS_MAX = 30


def holds_here(rule):
    """Whether a rule is one of a container without capabilities on this kernel and processor."""
    includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
    kernel = [int(part) for part in re.match(r"(\d+)\.(\d+)", platform.release()).groups()]
    architecture = ARCHITECTURES[platform.machine()]
    if includes.get("caps") or architecture in excludes.get("arches", []):
        return False
    if "minKernel" in includes and kernel < [int(part) for part in includes["minKernel"].split(".")]:
        return False
    return architecture in includes.get("arches", [architecture])


def filter_of(profile):
    refused = pyseccomp.ERRNO(profile["defaultErrnoRet"])
    rules = pyseccomp.SyscallFilter(refused)
    for rule in filter(holds_here, profile["syscalls"]):
        action = pyseccomp.ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else pyseccomp.ERRNO(rule.get("errnoRet", profile["defaultErrnoRet"]))
        arguments = [
            pyseccomp.Arg(item["index"], getattr(pyseccomp, item["op"].removeprefix("SCMP_CMP_")), item["value"], item.get("valueTwo", 0))
            for item in rule.get("args") or []
        ]
        for name in rule["names"]:
            try:
                rules.add_rule(action, name, *arguments)
            except (OSError, ValueError):
                pass  # a call that this processor or libseccomp does not have, or the default's own action
    return rules


def start(gateway, profile):
    """The gateway behind a filter; its broker is not there, which it survives."""
    # Made out here: whatever is wrong with it is told.
    rules = filter_of(profile)

    def enter():
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
        rules.load()

    environment = {"WS_ADDR": "127.0.0.1:0", "WS_SHARDS": "1", "KAFKA_BROKERS": "127.0.0.1:1", "LOG_FORMAT": "text", "WS_DRAIN": "0s"}
    return subprocess.Popen(
        [gateway], env=environment, preexec_fn=enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )


class Profile(unittest.TestCase):
    def test_it_is_dockers_default_with_io_uring(self):
        checked = subprocess.run([TOP / "scripts/seccomp-profile.sh", "--check"], capture_output=True, text=True)
        if checked.returncode == 69:
            self.skipTest(checked.stdout.strip())
        self.assertEqual(checked.returncode, 0, checked.stdout)


class BehindIt(unittest.TestCase):
    def setUp(self):
        if pyseccomp is None:
            self.skipTest(f"no libseccomp: {unavailable}")
        if program("odin-gateway") is None:
            self.skipTest("no target/*/odin-gateway: cargo build -p gateway")
        self.profile = json.loads(PROFILE.read_text())
        # Where the other user may read it.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        Path(folder.name).chmod(0o755)
        self.gateway = shutil.copy(program("odin-gateway"), folder.name)

    def test_the_gateway_serves_answers_the_health_check_and_ends_when_told_to(self):
        gateway = start(self.gateway, self.profile)
        self.addCleanup(gateway.kill)
        self.addCleanup(gateway.stdout.close)
        said = []
        for line in gateway.stdout:
            said.append(line)
            if match := re.search(r"serving .*address=127\.0\.0\.1:(\d+)", line):
                break
        else:
            self.fail("".join(said))
        check = [DEPLOYMENTS / "health-check", match[1], "/health/live"]
        self.assertEqual(subprocess.run(check, timeout=SECONDS_MAX).returncode, 0)
        gateway.send_signal(signal.SIGTERM)
        self.assertEqual(gateway.wait(SECONDS_MAX), 0)

    def test_behind_dockers_default_it_does_not_start_and_says_why(self):
        default = {**self.profile, "syscalls": [rule for rule in self.profile["syscalls"] if "io_uring_setup" not in rule["names"]]}
        self.assertEqual(len(default["syscalls"]), len(self.profile["syscalls"]) - 1)
        gateway = start(self.gateway, default)
        self.addCleanup(gateway.kill)
        said, _ = gateway.communicate(timeout=SECONDS_MAX)
        self.assertEqual(gateway.returncode, 69, said)
        self.assertIn("seccomp", said)


if __name__ == "__main__":
    unittest.main()
