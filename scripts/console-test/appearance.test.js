"use strict";
// Whether a person can read and use the page: on a desk and on a phone, dark and light. Leaves screenshots for eyes.

const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const gateway = require("./gateway");
const browser = require("./browser");
const { screenshot, untilConnected, untilDrawn, untilText } = browser;

const CONTRAST_MIN = 4.5; // WCAG 2.2, 1.4.3
const TOUCH_PIXELS_MIN = 40;
const PHONE = { width: 375, height: 812 };
const SCREENS = [[320, 568], [375, 812], [560, 900], [812, 375], [1023, 768], [1024, 768], [1151, 800], [1280, 800], [2560, 1300]];
const CONTROLS = [
  "#toggle",
  "#filter",
  "#pause",
  "#clear",
  "#token",
  "#kinds button",
  "#channel",
  "#add button",
  "#subscriptions button",
];

before(async () => {
  await gateway.start();
  await browser.launch();
});
after(async () => {
  await browser.close();
  await gateway.stopIfRunning();
});

// All kinds at once, with enough of the past for the sparkline to be a line.
async function openFilled(options) {
  const opened = await browser.open({ address: "/#*", ...options });
  await untilConnected(opened.page);
  await untilText(opened.page, "#received", /^[2-9]\d\d|^\d,/);
  await untilText(opened.page, "#health", /^healthy$/);
  return opened;
}

test("every text is readable on its background, dark and light", async () => {
  const { page, close } = await openFilled();
  for (const colorScheme of ["dark", "light"]) await inScheme(page, colorScheme, () => screenshot(page, `desk-${colorScheme}`));
  await page.locator(".row:not([hidden])").nth(2).click();
  await page.fill("#channel", "no-kind");
  await page.click("#add button");
  await untilText(page, "#notice", /^no-kind/);
  for (const colorScheme of ["dark", "light"]) {
    await inScheme(page, colorScheme, async () => {
      await screenshot(page, `desk-${colorScheme}-selected`);
      const contrasts = await page.evaluate(contrastsOfTexts);
      assert.ok(contrasts.length > 40, `only ${contrasts.length} texts found`);
      assert.deepEqual(contrasts.filter(({ contrast }) => contrast < CONTRAST_MIN), [], colorScheme);
    });
  }
  await page.click("#toggle");
  await untilText(page, "#toggle", /^Connect$/);
  for (const colorScheme of ["dark", "light"]) {
    await inScheme(page, colorScheme, async () => {
      const button = (await page.evaluate(contrastsOfTexts)).find(({ text }) => text === "Connect");
      assert.ok(button.contrast >= CONTRAST_MIN, `the primary button, ${colorScheme}: ${button.contrast}`);
    });
  }
  await close();
});

async function inScheme(page, colorScheme, look) {
  await page.emulateMedia({ colorScheme });
  await untilDrawn(page);
  await look();
}

// In the page: the contrast of each visible text, and of each kind's colour where it names a channel.
function contrastsOfTexts() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // Any CSS colour as [red, green, blue, alpha].
  const parsed = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = ([red, green, blue, alpha], below) => [red, green, blue].map((part, i) => part * alpha + below[i] * (1 - alpha));
  const background = (element) => {
    if (!element) return [255, 255, 255];
    const color = parsed(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, background(element.parentElement));
  };
  const luminance = (color) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = color.map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (above, below) => {
    const [dark, bright] = [luminance(above), luminance(below)].sort((a, b) => a - b);
    return Math.round(((bright + 0.05) / (dark + 0.05)) * 100) / 100;
  };
  const opacity = (element) => (element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1);
  const isText = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
  const hasText = (element) => element.matches("input") || [...element.childNodes].some(isText);
  const measured = (element, color, text) => {
    const below = background(element);
    const [red, green, blue, alpha] = parsed(color);
    return { text, contrast: contrast(over([red, green, blue, alpha * opacity(element)], below), below) };
  };
  const texts = [...document.body.querySelectorAll("*")]
    .filter((element) => hasText(element) && element.checkVisibility() && !element.closest("script, .hidden-visually"))
    .map((element) => measured(element, getComputedStyle(element).color, element.textContent.slice(0, 40) || `#${element.id}`));
  const placeholder = (input) => measured(input, getComputedStyle(input, "::placeholder").color, input.placeholder);
  const placeholders = [...document.querySelectorAll("input")].map(placeholder);
  const style = getComputedStyle(document.documentElement);
  const kinds = [...document.querySelectorAll("#kinds button")].map((button) => button.textContent);
  const beneath = [document.querySelector("#list"), document.querySelector(".row[aria-selected=true]")];
  const channel = (kind, element) => measured(element, style.getPropertyValue(`--${kind}`), `${kind} on ${element.className}`);
  const channels = kinds.flatMap((kind) => beneath.map((element) => channel(kind, element)));
  return [...texts, ...placeholders, ...channels];
}

test("on a phone nothing overflows and every control can be reached by a thumb", async () => {
  const { page, complaints, close } = await openFilled({ ...PHONE, colorScheme: "dark" });
  await screenshot(page, "phone-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await untilDrawn(page);
  await screenshot(page, "phone-light");
  // The longest that a person can cause: a long channel, a refusal that quotes a long name, an event shown whole.
  await page.fill("#channel", `${"W".repeat(48)}.trade ${"no-kind".repeat(12)}`);
  await page.click("#add button");
  await untilText(page, "#notice", /no-kind/);
  await page.locator(".row:not([hidden])").first().click();
  const { wide, beyond } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth - innerWidth,
    beyond: [...document.body.querySelectorAll("*")]
      .filter((element) => element.checkVisibility() && !element.closest(".hidden-visually, svg, datalist"))
      .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
      .map((element) => `${element.tagName} ${element.id} ${element.className}`),
  }));
  assert.ok(wide <= 0, `${wide} pixels too wide`);
  assert.deepEqual(beyond, []);
  for (const control of CONTROLS) await assertReachable(page.locator(control).first(), control);
  await page.locator("#channel").scrollIntoViewIfNeeded();
  await screenshot(page, "phone-light-channels");
  assert.deepEqual(complaints, []);
  await close();
});

async function assertReachable(locator, name) {
  await locator.scrollIntoViewIfNeeded();
  const { covered, height, width } = await locator.evaluate((control) => {
    const { x, y, width, height } = control.getBoundingClientRect();
    return { width, height, covered: !control.contains(document.elementFromPoint(x + width / 2, y + height / 2)) };
  });
  assert.equal(covered, false, `${name} is covered or out of sight`);
  assert.ok(Math.min(width, height) >= TOUCH_PIXELS_MIN, `${name} is ${width} x ${height}`);
}

test("nothing overflows sideways and no figure is cut on any screen", async () => {
  const { page, close } = await browser.open();
  await untilConnected(page);
  await page.waitForSelector(".row:not([hidden])");
  await untilText(page, "#health", /^healthy$/);
  for (const [width, height] of SCREENS) {
    await page.setViewportSize({ width, height });
    await untilDrawn(page);
    const { wide, cut } = await page.evaluate(() => ({
      wide: document.documentElement.scrollWidth - innerWidth,
      cut: [...document.querySelectorAll(".figure > *")]
        .filter((element) => element.scrollWidth > element.clientWidth)
        .map((element) => element.textContent),
    }));
    assert.ok(wide <= 0, `${wide} pixels too wide at ${width} x ${height}`);
    assert.deepEqual(cut, [], `cut at ${width} x ${height}`);
    await screenshot(page, `${width}x${height}`);
  }
  await close();
});
