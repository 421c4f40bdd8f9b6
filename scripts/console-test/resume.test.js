"use strict";
// What the console asks for after an outage, and what it shows of the answer.
//
// Most of these tests speak the gateway's part themselves, message by message; the last one cuts the line to the real one.

const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const gateway = require("./gateway");
const browser = require("./browser");
const { rowsInSight, until, untilConnected } = browser;

before(async () => {
  await gateway.start();
  await browser.launch();
});
after(async () => {
  await browser.close();
  await gateway.stopIfRunning();
});

const event = (channel, pos) =>
  JSON.stringify({ seq: 1, ts: Date.now(), type: "price:update", priority: 1, channel, pos, data: { type: "T", data: {} } });
const ack = (subscribed, more) => JSON.stringify({ type: "subscription_ack", subscribed, count: subscribed.length, ...more });

/** Opens the console against a gateway that is played: `answer(socket, data, connection)` gets every subscribe. */
function openPlayed(address, answer) {
  let connection = 0;
  const before = (page) =>
    page.routeWebSocket(/\/ws$/, (socket) => {
      const number = ++connection;
      socket.onMessage((text) => {
        const { type, data } = JSON.parse(text);
        if (type === "subscribe") answer(socket, data, number);
      });
    });
  return browser.open({ address, before });
}

const untilRow = (page, text) => page.waitForSelector(`.row:not([hidden]):has-text("${text}")`);

test("after an outage each channel resumes where it stood, and what is missing is shown", async () => {
  const asked = [];
  const positions = { trade: ["0:51", "1:48"], social: ["0:1"] };
  const { page, complaints, close } = await openPlayed("/#BTC.trade,*.trade,ETH.social,SOL.social", (socket, data, connection) => {
    asked.push(data);
    if (connection === 1) {
      socket.send(ack(data.channels, { positions }));
      socket.send(event("BTC.trade", "1:59"));
      socket.send(event("DOGE.trade", "1:60"));
      socket.send(event("ETH.social", "0:7"));
      socket.send(JSON.stringify({ type: "gap", channel: "*.trade", from: "0:51", to: "0:55", reason: "retention" }));
      return void socket.close({ code: 1001, reason: "the gateway shuts down" });
    }
    const missed = { channel: "SOL.social", code: "unknown_position", message: "in the future" };
    socket.send(ack(data.channels, { positions, not_resumed: [missed] }));
    socket.send(event("BTC.trade", "1:61"));
    socket.send(JSON.stringify({ type: "resumed", channel: "*.trade", replayed: 1 }));
  });
  await untilRow(page, "resumed: 1 event replayed");
  await untilRow(page, "not resumed: in the future");
  await untilRow(page, "gap 0:51 to 0:55: retention");
  await untilConnected(page);
  assert.equal(asked.length, 2);
  assert.equal(asked[0].positions, true);
  assert.deepEqual(asked[0].since ?? {}, {});
  // What *.trade brings anyway comes last, and live.
  assert.deepEqual(asked[1].channels, ["*.trade", "ETH.social", "SOL.social", "BTC.trade"]);
  assert.deepEqual(asked[1].since, { "*.trade": { trade: ["0:56", "1:61"] }, "ETH.social": "0:7", "SOL.social": ["0:1"] });
  assert.equal(await page.locator("#subscriptions li.live").count(), 4);
  assert.deepEqual(complaints, []);
  await close();
});

test("of two channels that overlap in part both are resumed, and one that cannot be goes on live, and the list says so", async () => {
  const asked = [];
  const positions = { trade: ["0:5"], social: ["0:6"] };
  const { page, complaints, close } = await openPlayed("/#BTC.*,*.trade", (socket, data, connection) => {
    asked.push(data);
    if (connection === 1) {
      socket.send(ack(data.channels, { positions }));
      return void socket.close({ code: 1008, reason: "too slow" });
    }
    const refused = [{ channel: "*.trade", code: "already_live", message: "it has events" }];
    socket.send(ack(data.channels, { positions, not_resumed: refused }));
  });
  await page.waitForFunction(() => document.querySelectorAll("#subscriptions li.live").length === 2);
  assert.deepEqual(asked[1].since, { "BTC.*": { trade: ["0:5"], social: ["0:6"] }, "*.trade": { trade: ["0:5"] } });
  await untilRow(page, "not resumed: it has events");
  assert.equal(asked.length, 2);
  assert.deepEqual(complaints, []);
  await close();
});

test("the button's disconnect forgets where the channels stood", async () => {
  const asked = [];
  const { page, close } = await openPlayed("/#*.trade", (socket, data) => {
    asked.push(data);
    socket.send(ack(data.channels, { positions: { trade: ["0:5"] } }));
  });
  const untilLive = () => page.waitForSelector("#subscriptions li.live");
  await untilLive();
  await page.click("#toggle");
  await page.click("#toggle");
  await untilLive();
  await until(() => asked.length === 2, "subscribed again");
  assert.deepEqual(asked[1].since, {});
  await close();
});

test("when the line to the gateway is cut, no event is missed and none comes twice", async () => {
  const seen = []; // the positions of all events that reached the page
  let cut = async () => {};
  const before = (page) =>
    page.routeWebSocket(/\/ws$/, (socket) => {
      const server = socket.connectToServer();
      let isCut = false;
      server.onMessage((text) => {
        if (isCut) return;
        const message = JSON.parse(text);
        if (message.type === "price:update") seen.push(message.pos.split(":").map(Number));
        socket.send(text);
      });
      cut = () => {
        isCut = true;
        return Promise.all([server.close(), socket.close({ code: 1011, reason: "cut" })]);
      };
    });
  const { page, close } = await browser.open({ address: "/#*.trade", before });
  await untilConnected(page);
  await until(() => seen.length > 50, "events before the cut");
  await cut();
  await page.click("#filter"); // the row may be gone from sight when it is looked for
  await page.fill("#filter", '"type":"resumed"');
  await untilRow(page, "resumed:");
  const atResume = seen.length;
  await until(() => seen.length > atResume + 50, "events after the resume");
  const next = new Map();
  for (const [partition, offset] of seen) {
    assert.equal(offset, next.get(partition) ?? offset, `of partition ${partition}`);
    next.set(partition, offset + 1);
  }
  assert.equal((await rowsInSight(page)).length, 1);
  await close();
});
