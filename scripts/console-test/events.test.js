"use strict";
// What the console shows of the events, the channels and the server.

const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const gateway = require("./gateway");
const browser = require("./browser");
const { rowsInSight, subscribe, unsubscribe, until, untilConnected, untilEventsArrive, untilText } = browser;

before(async () => {
  await gateway.start();
  await browser.launch();
});
after(async () => {
  await browser.close();
  await gateway.stopIfRunning();
});

test("the page connects by itself and shows trades, their rate and their latency", async () => {
  const { page, complaints, close } = await browser.open();
  await untilConnected(page);
  assert.equal(await page.textContent("#address"), `${gateway.origin().replace("http", "ws")}/ws`);
  await untilText(page, "#rate", /^[1-9]/);
  await untilText(page, "#latency", /^[\d,]+ ms$/);
  const rows = await rowsInSight(page);
  assert.ok(rows.length > 0);
  for (const row of rows) {
    assert.match(row.channel, /^[A-Z]+\.trade$/);
    assert.match(row.pos, /^\d+:\d+$/);
    assert.match(row.text, /price/);
  }
  assert.deepEqual(complaints, []);
  await close();
});

test("the sparkline draws what was measured", async () => {
  const { page, close } = await browser.open({ address: "/?connect=off" });
  const columns = () => page.evaluate(columnsOfTheMedian);
  await page.waitForFunction(() => document.querySelector("#sparkline").width > 0);
  assert.equal(await columns(), 0);
  await page.click("#toggle");
  await until(async () => (await columns()) >= 5, "the sparkline has five columns");
  await close();
});

// In the page: how many columns of the sparkline have a pixel of the median's colour.
function columnsOfTheMedian() {
  const canvas = document.querySelector("#sparkline");
  const context = canvas.getContext("2d");
  const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  const wanted = [1, 3, 5].map((at) => parseInt(accent.slice(at, at + 2), 16));
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const columns = new Set();
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 128 && wanted.every((part, i) => Math.abs(part - data[at + i]) < 40)) columns.add((at / 4) % canvas.width);
  }
  return columns.size;
}

test("a channel added by the form shows its events, and removed it shows no more", async () => {
  const { page, complaints, close } = await browser.open();
  await untilConnected(page);
  await unsubscribe(page, "*.trade");
  await subscribe(page, "BTC.*");
  await untilEventsArrive(page);
  await until(async () => (await rowsInSight(page)).some(({ channel }) => !channel.endsWith(".trade")), "an event that is no trade");
  for (const row of await rowsInSight(page)) assert.match(row.channel, /^BTC\./);
  await unsubscribe(page, "BTC.*");
  await untilText(page, "#rate", /^0$/);
  await page.click("#clear");
  await sleep(1000);
  assert.equal(await page.textContent("#received"), "0 received");
  assert.match(await page.textContent("#empty"), /Pick a channel/);
  assert.deepEqual(complaints, []);
  await close();
});

test("a kind's button subscribes, and unsubscribes", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.fill("#token", "ETH");
  const button = page.locator("#kinds button", { hasText: "liquidity" });
  await button.click();
  await page.waitForSelector("#subscriptions li.live:has-text('ETH.liquidity')");
  assert.equal(await button.getAttribute("aria-pressed"), "true");
  assert.match(page.url(), /#\*\.trade,ETH\.liquidity$/);
  await button.click();
  await page.waitForSelector("#subscriptions li:has-text('ETH.liquidity')", { state: "detached" });
  assert.equal(await button.getAttribute("aria-pressed"), "false");
  await close();
});

test("a channel that the gateway refuses is named with the reason", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.fill("#channel", "no-kind");
  await page.click("#add button");
  await untilText(page, "#notice", /^no-kind: .{10,}/);
  await page.waitForSelector("#subscriptions li:has-text('no-kind')", { state: "detached" });
  await close();
});

test("the filter leaves only the events that contain its text", async () => {
  const { page, close } = await browser.open({ address: "/#*" });
  await untilConnected(page);
  await page.keyboard.press("/");
  await page.keyboard.type("sol.trade");
  await untilText(page, "#shown", /^[1-9]\d* of \d+$/);
  const rows = await rowsInSight(page);
  assert.ok(rows.length > 0);
  for (const row of rows) assert.equal(row.channel, "SOL.trade");
  await page.fill("#filter", "no event says this");
  // The text below may be of the moment when there was no SOL.trade yet.
  await untilText(page, "#shown", /^0 of \d+$/);
  await untilText(page, "#empty", /No event matches/);
  assert.deepEqual(await rowsInSight(page), []);
  await page.fill("#filter", "");
  await untilText(page, "#shown", /^newest \d+$/);
  await close();
});

test("a paused list holds still while events go on arriving, and resumes", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.waitForSelector(".row:not([hidden])");
  await page.click("#pause");
  await untilText(page, "#pause", /^Resume$/);
  const held = await rowsInSight(page);
  await untilText(page, "#shown", /^\d{2,} new$/);
  assert.deepEqual(await rowsInSight(page), held);
  await page.click("#pause");
  await untilText(page, "#shown", /^newest \d+$/);
  assert.notDeepEqual(await rowsInSight(page), held);
  await close();
});

test("pausing moves nothing: what was in sight is what is held", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await untilEventsArrive(page);
  await page.waitForSelector(".row:not([hidden])");
  // The list is drawn at most every 100 ms: at some of these moments events have arrived that are not drawn yet.
  for (const wait of [30, 45, 60, 75, 90]) {
    const [seen, held] = await page.evaluate(async (wait) => {
      const rows = () => [...document.querySelectorAll(".row:not([hidden])")];
      const inSight = () => rows().map((row) => row.style.transform + row.textContent).sort();
      const frame = () => new Promise(requestAnimationFrame);
      const pause = document.querySelector("#pause");
      await new Promise((waited) => setTimeout(waited, wait));
      const seen = inSight();
      pause.click();
      await frame();
      await frame();
      const held = inSight();
      pause.click();
      await frame();
      return [seen, held];
    }, wait);
    assert.deepEqual(held, seen);
  }
  await close();
});

test("the event under the pointer is the one that a slow click selects", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.waitForFunction(() => document.querySelectorAll(".row:not([hidden])").length > 5);
  const { x, y } = await page.$eval("#list", (list) => list.getBoundingClientRect());
  await page.mouse.move(x + 40, y + 100);
  await page.mouse.down();
  const position = ([x, y]) => document.elementFromPoint(x, y).closest(".row").querySelector(".pos").textContent;
  const pressed = await page.evaluate(position, [x + 40, y + 100]);
  await untilText(page, "#shown", /^\d+ new$/);
  await page.mouse.up();
  await page.waitForFunction((pos) => document.querySelector("#detail-title").textContent.endsWith(pos), pressed);
  await close();
});

test("a selected event is shown whole, by mouse and by keyboard", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.locator(".row:not([hidden])").nth(1).waitFor(); // one to go down to
  await page.locator(".row:not([hidden])").first().click();
  await untilText(page, "#detail-text", /"type": "price:update"/);
  const selected = page.locator(".row[aria-selected=true]");
  const shown = JSON.parse(await page.textContent("#detail-text"));
  assert.equal(await selected.locator(".channel").textContent(), shown.channel);
  assert.equal(await selected.locator(".pos").textContent(), shown.pos);
  const title = await page.textContent("#detail-title");
  await page.focus("#list");
  await page.keyboard.press("ArrowDown");
  await page.waitForFunction((title) => document.querySelector("#detail-title").textContent !== title, title);
  await close();
});

test("the server's health figures are those of /health", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  const health = await (await fetch(`${gateway.origin()}/health`)).json();
  await untilText(page, "#health", /^healthy$/);
  await untilText(page, "#sessions", /^[1-9]\d* \/ /);
  assert.ok((await page.textContent("#sessions")).endsWith(` / ${health.checks.capacity.max.toLocaleString("en")}`));
  assert.equal(await page.textContent("#version"), `version ${health.version}`);
  assert.equal(await page.textContent("#kafka"), "Kafka running");
  assert.match(await page.textContent("#uptime"), /^\d+ (s|min)/);
  await close();
});

test("markup in what arrives stays text", async () => {
  const markup = '<img src="/stolen" onerror="document.title=1"><b>bold</b>';
  const data = { type: markup, data: { [markup]: markup } };
  const hostile = [
    JSON.stringify({ seq: 1, ts: 1700000000000, type: "price:update", priority: 1, channel: `${markup}.trade`, pos: "0:1", data }),
    JSON.stringify({ type: "gap", channel: markup, from: "0:1", to: "0:2", reason: markup }),
    JSON.stringify({ type: "error", code: markup, message: markup }),
    `not JSON: ${markup}`,
  ];
  // The real server's messages with these among them.
  const before = (page) =>
    page.routeWebSocket(/\/ws$/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((text) => {
        socket.send(text);
        if (JSON.parse(text).type === "subscription_ack") hostile.forEach((each) => socket.send(each));
      });
    });
  const { page, complaints, close } = await browser.open({ address: "/#NOBODY.trade", before });
  await page.waitForFunction((count) => document.querySelectorAll(".row:not([hidden])").length === count, hostile.length);
  await page.locator(".row", { hasText: ".trade" }).click();
  await untilText(page, "#detail-text", /<b>bold<\/b>/);
  assert.equal(await page.textContent("#notice"), markup);
  assert.equal(await page.locator("img, b").count(), 0);
  assert.equal(await page.title(), "Odin gateway console");
  assert.deepEqual(complaints, []);
  await close();
});

test("the page can be made to ask nothing of another host", async () => {
  const { page, complaints, close } = await browser.open();
  await assert.rejects(page.evaluate(() => fetch("http://127.0.0.1:9/elsewhere")));
  assert.match(complaints.join("\n"), /Content Security Policy/);
  await close();
});
