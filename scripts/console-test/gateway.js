"use strict";
// The gateway under test: the real program with its embedded broker, on a port of its own, the same after a restart.
//
// One runs at a time. It ends with the process that started it, however that process ends.

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { createServer } = require("node:net");
const { setTimeout: sleep } = require("node:timers/promises");

const HOST = "127.0.0.1";
const PORT_FIRST = 13003;
const PORT_LAST = 13102;
const READY_MS_MAX = 20_000;
const STOP_MS_MAX = 15_000;
const LOG_CHARACTERS_MAX = 64 << 10;

let port = 0; // chosen by the first start
let running = null; // { child, log }

process.on("exit", () => running?.child.kill("SIGKILL"));

/** Starts the gateway and returns once it is ready to serve; a failure carries its log. */
async function start() {
  port ||= await freePort();
  const environment = { ...process.env, WS_ADDR: `${HOST}:${port}`, DEV_EVENT_RATE: "100", LOG_FORMAT: "text" };
  const child = spawn(process.env.ODIN_GATEWAY, ["--dev"], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  const started = { child, log: "" };
  const listen = (stream) => stream.on("data", (text) => (started.log = (started.log + text).slice(-LOG_CHARACTERS_MAX)));
  listen(child.stdout);
  listen(child.stderr);
  child.on("error", (error) => (started.log += error));
  running = started;
  const deadline = Date.now() + READY_MS_MAX;
  // The child has to say so itself: another program may answer on the port.
  while (child.exitCode === null && child.pid && Date.now() < deadline) {
    if (started.log.includes("serving") && (await isReady())) return;
    await sleep(50);
  }
  child.kill("SIGKILL");
  running = null;
  throw new Error(`the gateway did not become ready\n${started.log}`);
}

/** Where the gateway serves, as in `http://127.0.0.1:13003`. */
const origin = () => `http://${HOST}:${port}`;

// Below the ports that the kernel gives to outgoing connections: nothing takes it while the gateway is down.
async function freePort() {
  for (let candidate = PORT_FIRST; candidate <= PORT_LAST; candidate++) {
    const server = createServer();
    try {
      server.listen(candidate, HOST);
      await once(server, "listening");
      return candidate;
    } catch {
      // taken
    } finally {
      await new Promise((closed) => server.close(closed));
    }
  }
  throw new Error(`no free port from ${PORT_FIRST} to ${PORT_LAST}`);
}

async function isReady() {
  try {
    const response = await fetch(`${origin()}/health/ready`);
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

/** Asks the gateway to stop and returns its exit code. */
async function stop() {
  const { child, log } = running;
  const exit = once(child, "exit", { signal: AbortSignal.timeout(STOP_MS_MAX) });
  child.kill("SIGTERM");
  let code;
  try {
    [code] = await exit;
  } catch {
    child.kill("SIGKILL");
    throw new Error(`the gateway did not stop within ${STOP_MS_MAX} ms of SIGTERM\n${log}`);
  } finally {
    running = null;
  }
  return code;
}

/** For the end of a test file: stops what still runs. */
async function stopIfRunning() {
  if (running) await stop();
}

module.exports = { origin, start, stop, stopIfRunning };
