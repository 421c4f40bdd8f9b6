"use strict";
// Headless Chromium on the console page, and a record of everything that a clean page does not do.
//
// Waits have a bound that is far above what a busy machine needs: it ends a hopeless wait and measures nothing.

const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const { chromium } = require("playwright-core");
const { origin } = require("./gateway");

const WAIT_MS_MAX = 20_000;

let browser = null;

/** Starts the browser that all pages of a test file share. */
async function launch() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    chromiumSandbox: false, // as root, and in most containers, it cannot be had; the page is our own
    args: [
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

async function close() {
  await browser?.close();
  browser = null;
}

/**
 * Opens the console in a profile of its own. `complaints` of the answer collects console errors and warnings (a violation of
 * the Content-Security-Policy is one), exceptions and requests to any other host.
 */
async function open({ address = "/", width = 1280, height = 800, colorScheme = "light", before = async () => {} } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS_MAX);
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console ${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  const requested = (url) => {
    if (!url.startsWith("data:") && new URL(url).host !== new URL(origin()).host) complaints.push(`request to ${url}`);
  };
  page.on("request", (request) => requested(request.url()));
  page.on("websocket", (socket) => requested(socket.url()));
  await before(page);
  await page.goto(origin() + address);
  return { page, complaints, close: () => context.close() };
}

/** Waits until the condition holds, asked from outside of the page. */
async function until(condition, what) {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`);
    await sleep(50);
  }
}

/** Waits until the element's text matches. */
async function untilText(page, selector, pattern) {
  const seen = ([selector, source]) => new RegExp(source).test(document.querySelector(selector)?.textContent ?? "");
  try {
    await page.waitForFunction(seen, [selector, pattern.source]);
  } catch (error) {
    const text = await page.textContent(selector).catch(() => "(gone)");
    throw new Error(`${selector} never matched ${pattern}; it says: ${text}`, { cause: error });
  }
}

const untilConnected = (page) => untilText(page, "#state", /^Connected$/);

/** Waits for events that arrive after this call. */
async function untilEventsArrive(page) {
  await page.click("#clear");
  await untilDrawn(page); // the old count is gone
  await untilText(page, "#received", /^[1-9]/);
}

/** Waits until the page has drawn what was asked of it before. */
const untilDrawn = (page) => page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));

/** What the rows in sight say, newest first. */
const rowsInSight = (page) =>
  page.$$eval(".row:not([hidden])", (rows) => {
    const part = (row, name) => row.querySelector(`.${name}`).textContent;
    const top = (row) => row.getBoundingClientRect().top;
    return rows
      .sort((a, b) => top(a) - top(b))
      .map((row) => ({ channel: part(row, "channel"), text: part(row, "text"), pos: part(row, "pos") }));
  });

/** Adds a channel by the form and waits for the gateway's word that it is live. */
async function subscribe(page, channel) {
  await page.fill("#channel", channel);
  await page.click("#add button");
  const isLive = (channel) =>
    [...document.querySelectorAll("#subscriptions li.live")].some((item) => item.textContent.startsWith(channel));
  await page.waitForFunction(isLive, channel);
}

const unsubscribe = (page, channel) => page.click(`[aria-label="Unsubscribe from ${channel}"]`);

/** A picture for eyes; no test compares it. */
const screenshot = (page, name) => page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`) });

module.exports = {
  launch,
  close,
  open,
  screenshot,
  until,
  untilText,
  untilConnected,
  untilDrawn,
  untilEventsArrive,
  rowsInSight,
  subscribe,
  unsubscribe,
};
