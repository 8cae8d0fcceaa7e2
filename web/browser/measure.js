// Measures the page against a server that runs already: `node browser/measure.js URL TOKEN [minutes of streaming]`. Prints medians.

import { chromium } from "playwright-core";

const [url, token, minutes = "0"] = process.argv.slice(2);
if (url === undefined || token === undefined) throw new Error("say where the server is, and its token");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-precise-memory-info", "--js-flags=--expose-gc"];
const headers = { Authorization: `Bearer ${token}` };
const name = `measure-${Date.now()}`;
await fetch(`${url}/v1/sessions/${name}`, { method: "PUT", headers });
for (let index = 0; index < 20; index += 1) {
  await fetch(`${url}/v1/sessions/${name}/run`, { method: "POST", headers, body: JSON.stringify({ code: `print("cell ${index}\\n" * 20)` }) });
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function open(browser) {
  const page = await (await browser.newContext({ viewport: { width: 1180, height: 880 } })).newPage();
  await page.addInitScript((secret) => sessionStorage.setItem("evercell:token", secret), token);
  await page.goto(`${url}/#/s/${name}`);
  await page.locator(".cell").first().waitFor();
  return page;
}

// A new browser each time: nothing is kept from before.
const [paints, cells] = [[], []];
for (let round = 0; round < 7; round += 1) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
  const page = await open(browser);
  const times = await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve([performance.getEntriesByName("first-contentful-paint")[0]?.startTime, performance.now()])))));
  paints.push(times[0]);
  cells.push(times[1]);
  await browser.close();
}
console.log(`first paint of a session of 20 cells, cold: ${Math.round(median(paints))} ms; all cells there: at most ${Math.round(median(cells))} ms`);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
const page = await open(browser);
await page.locator(".adders").getByRole("button", { name: "Code" }).click();
await page.locator(".cell.edit .cm-content").waitFor();
const delays = [];
for (let round = 0; round < 30; round += 1) {
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText(`print("round ${round} is out")`);
  const text = `round ${round} is out`;
  await page.evaluate(() => {
    addEventListener("keydown", ({ key, timeStamp }) => { if (key === "Enter") window.pressedAt ??= timeStamp; }, { capture: true });
    window.pressedAt = undefined;
  });
  await page.keyboard.press("Control+Enter");
  const delay = await page.waitForFunction((wanted) => {
    const isThere = [...document.querySelectorAll(".stream .text")].some((element) => element.textContent.includes(wanted));
    return isThere && performance.now() - window.pressedAt;
  }, text, { polling: "raf" });
  delays.push(await delay.jsonValue());
  await page.locator(".pill.idle").waitFor();
  await page.keyboard.press("Enter");
  await page.locator(".cell.edit .cm-content").waitFor();
}
console.log(`from key press to first output in the page: ${median(delays).toFixed(1)} ms, at most ${Math.max(...delays).toFixed(1)} ms`);

if (Number(minutes) > 0) {
  const memory = () => page.evaluate(() => {
    globalThis.gc?.();
    return performance.memory.usedJSHeapSize / 1e6;
  });
  const before = await memory();
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText(`import time\nend = time.time() + ${Number(minutes) * 60}\ni = 0\nwhile time.time() < end:\n    for _ in range(200): i += 1; print("streaming line", i)\n    time.sleep(0.1)\nprint("the stream is over")`);
  await page.keyboard.press("Control+Enter");
  for (;;) {
    if ((await page.locator(".offer.strong").count()) > 0) await page.keyboard.press("e");
    if ((await page.getByText("the stream is over").count()) > 1) break;
    await page.waitForTimeout(1000);
  }
  const lines = await page.locator(".stream .text").last().evaluate((element) => /streaming line (\d+)\n[^\n]*\n?$/.exec(element.textContent)?.[1]);
  console.log(`memory of the page: ${before.toFixed(1)} MB before, ${(await memory()).toFixed(1)} MB after ${minutes} minutes and ${lines} lines`);
}
await browser.close();
