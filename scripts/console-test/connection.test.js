"use strict";
// What the console makes of a connection that ends, by its own will and by the gateway's.

const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const gateway = require("./gateway");
const browser = require("./browser");
const { screenshot, until, untilConnected, untilDrawn, untilEventsArrive, untilText } = browser;

before(async () => {
  await gateway.start();
  await browser.launch();
});
after(async () => {
  await browser.close();
  await gateway.stopIfRunning();
});

test("the button disconnects, and connects again to the same channels", async () => {
  const { page, complaints, close } = await browser.open({ address: "/#BTC.*,*.liquidity" });
  await untilConnected(page);
  await untilEventsArrive(page);
  await page.click("#toggle");
  await untilText(page, "#state", /^Not connected$/);
  await untilText(page, "#toggle", /^Connect$/);
  await untilText(page, "#rate", /^0$/);
  const received = await page.textContent("#received");
  await sleep(1000);
  assert.equal(await page.textContent("#received"), received);
  await page.click("#toggle");
  await untilConnected(page);
  await page.waitForFunction(() => document.querySelectorAll("#subscriptions li.live").length === 2);
  await untilEventsArrive(page);
  assert.deepEqual(complaints, []);
  await close();
});

test("a gateway that stops is said with its reason, and when it is back events flow without a hand", async () => {
  const { page, complaints, close } = await browser.open();
  await untilConnected(page);
  await untilEventsArrive(page);
  await untilText(page, "#health", /^healthy$/);

  const exit = gateway.stop();
  await untilText(page, "#state", /^Closed \(1001: .+\)\. Reconnecting/);
  await untilText(page, "#state-told", /^Closed \(1001: .+\)$/);
  assert.equal(await exit, 0);
  await untilText(page, "#health", /^unreachable$/);
  // Attempts that nobody answers do not hide why it was closed.
  const unanswered = () => complaints.filter((complaint) => /WebSocket connection to .+ failed/.test(complaint)).length;
  await until(() => unanswered() >= 2, "two attempts to reconnect that fail");
  await untilText(page, "#state", /^Closed \(1001: .+\)\. Reconnecting in \d+ s$/);
  await screenshot(page, "desk-gateway-gone");
  await page.setViewportSize({ width: 375, height: 812 });
  await untilDrawn(page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${wide} pixels too wide`);
  await screenshot(page, "phone-gateway-gone");

  await gateway.start();
  await untilConnected(page);
  await untilEventsArrive(page);
  await untilText(page, "#health", /^healthy$/);
  // What the browser itself writes of the outage, and nothing else.
  const expected = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|status of 503/;
  assert.deepEqual(complaints.filter((complaint) => !expected.test(complaint)), []);
  await close();
});
