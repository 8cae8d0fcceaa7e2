import axe from "axe-core";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";
import { ask } from "./server.ts";

useBrowser();

/** Where pictures go: `SCREENSHOTS=docs/notebook` keeps them, otherwise they are made and thrown away. */
const place = process.env["SCREENSHOTS"] ?? mkdtempSync(join(tmpdir(), "evercell-pictures-"));
mkdirSync(place, { recursive: true });

async function picture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(place, `${name}.png`), animations: "disabled", caret: "hide" });
}

/** What axe finds serious or worse in the page as it stands. */
async function seriousFaults(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const results = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run(document, { iframes: false }));
  return results.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target.join(" ")} ${node.any[0]?.message ?? ""}`).join("; ")}`);
}

const LOAD = `import pandas as pd
wine = pd.DataFrame({
    "cultivar": ["Barbera", "Barolo", "Grignolino"],
    "alcohol": [13.15, 13.74, 12.32],
    "flavanoids": [0.78, 2.98, 2.08],
    "proline": [633.12, 1115.71, 519.51],
})
print(len(wine), "cultivars, nothing missing")
wine`;

const PLOT = `import numpy as np
import matplotlib.pyplot as plt
rng = np.random.default_rng(7)
fig, ax = plt.subplots(figsize=(6.4, 3.1))
for (name, x, y) in zip(wine.cultivar, wine.flavanoids, [7.4, 5.5, 3.1]):
    ax.scatter(rng.normal(x, 0.35, 55), rng.normal(y, 0.9, 55), s=18, alpha=0.75, label=name)
ax.set(xlabel="flavanoids", ylabel="colour intensity")
ax.legend(frameon=False)
plt.show()`;

async function conversation(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Write a first cell" }).click();
  await page.keyboard.press("Escape");
  await page.keyboard.press("m");
  await page.keyboard.press("Enter");
  await page.keyboard.insertText("## Three wines from Piedmont\n\nWhich cultivar is it? The flavanoids $f$ and the colour intensity $c$ nearly say it alone.");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.insertText(LOAD);
  await page.keyboard.press("Control+Enter");
  await page.frameLocator(".frame").getByText("1115.71").waitFor();
  await isIdle(page);
  await runCell(page, PLOT);
  await page.locator(".picture img").waitFor();
  await isIdle(page);
}

test("every state of the page is legible, light and dark, wide and narrow, and axe finds nothing serious", async () => {
  const faults: Record<string, string[]> = {};
  const look = async (page: Page, name: string): Promise<void> => {
    await picture(page, name);
    faults[name] = await seriousFaults(page);
  };
  const light = await visitor({ viewport: { width: 1180, height: 880 } });
  const name = "wine";
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 30_000 });
  // Where the font for Chinese is missing figures warn of it, which is not what these pictures are about.
  await ask(inject("url"), "POST", `/v1/sessions/${name}/run`, { silent: true, code: "import matplotlib; matplotlib.rcParams['font.family'] = ['sans-serif']" });
  const page = await openSession(light, name);
  await page.locator(".first-run").waitFor();
  await look(page, "first-run");
  await conversation(page);
  await page.keyboard.press("Escape");
  await page.locator(".cell").nth(1).click({ position: { x: 8, y: 12 } });
  await page.evaluate(() => scrollTo(0, 0));
  await look(page, "light");
  await page.getByRole("button", { name: "Variables", exact: true }).click();
  await page.getByRole("row", { name: /wine/ }).waitFor();
  await look(page, "variables");
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await page.getByLabel("Files to upload").setInputFiles({ name: "wine.csv", mimeType: "text/csv", buffer: Buffer.from("cultivar,alcohol,since\nBarbera,13.15,2019-04-01\nBarolo,13.74,2018-10-12\nGrignolino,12.32,2021-02-20\n") });
  await page.getByRole("button", { name: /^wine\.csv/ }).click();
  await page.getByRole("region", { name: "wine.csv" }).getByText("13.74").waitFor();
  await look(page, "files");
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await page.keyboard.press("?");
  await page.getByRole("dialog").getByText("Run and go to the next cell").waitFor();
  await look(page, "keys");
  await page.keyboard.press("Escape");

  const dark = await visitor({ viewport: { width: 1180, height: 880 }, colorScheme: "dark" });
  const night = await openSession(dark, name);
  await night.locator(".picture img").waitFor();
  await night.frameLocator(".frame").getByText("1115.71").waitFor();
  await night.locator(".markdown math").first().waitFor();
  await look(night, "dark");

  const phone = await visitor({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  const small = await openSession(phone, name);
  await small.frameLocator(".frame").getByText("1115.71").waitFor();
  await look(small, "narrow");
  expect(await small.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);

  const trouble = "training";
  await ask(inject("url"), "PUT", `/v1/sessions/${trouble}`, { cell_ms: 30_000, warning_ms: 29_000, ceiling_ms: 900_000 });
  const bad = await openSession(light, trouble);
  await runCell(bad, "prices = {'Barolo': 38.5}\nprices['Barbera']");
  await bad.getByText("KeyError: 'Barbera'").first().waitFor();
  await isIdle(bad);
  await runCell(bad, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)");
  await shows(bad, "The kernel was killed by SIGKILL.");
  await isIdle(bad);
  await look(bad, "verdict");
  await runCell(bad, "import sys, time\nfor epoch in range(1, 201):\n    print(f'\\repoch {epoch} of 200, loss {1 / epoch:.3f}', end='')\n    time.sleep(0.2)");
  await bad.getByText("Stops soon. More time?").waitFor();
  await runCell(bad, "print('when that is done')");
  await shows(bad, "Next to run");
  await look(bad, "running");
  const list = await light.newPage();
  await list.goto(`${inject("url")}/`);
  await list.locator(".sessions li").first().waitFor();
  await look(list, "sessions");
  await bad.getByRole("button", { name: "Interrupt", exact: true }).click();
  await isIdle(bad);

  const login = await (await visitor()).newPage();
  await login.goto(inject("url"));
  await login.getByLabel("Token").waitFor();
  await look(login, "login");
  expect(Object.entries(faults).filter(([, found]) => found.length > 0)).toEqual([]);
});

test("by keyboard alone: from the token to a result, and about in the notebook", async () => {
  const page = await openSession(await visitor(), freshName("keyboard"));
  const first = page.getByRole("button", { name: "Write a first cell" });
  await first.waitFor();
  for (let presses = 0; presses < 20 && !(await first.evaluate((element) => element === document.activeElement)); presses += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.type("20 + 3");
  await page.keyboard.press("Shift+Enter");
  await shows(page, "23");
  await page.keyboard.type("'second'");
  await page.keyboard.press("Escape");
  await page.keyboard.press("k");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe("Code cell 1");
  await page.keyboard.press("b");
  await page.keyboard.press("Enter");
  await page.keyboard.type("between");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Shift+ArrowDown");
  const sources = await page.locator(".cell .cm-content").allInnerTexts();
  expect(sources.map((text) => text.trim())).toEqual(["20 + 3", "'second'", "between"]);
  await page.keyboard.press("c");
  await page.keyboard.press("v");
  expect(await page.locator(".cell").count()).toBe(4);
  await page.keyboard.press("x");
  expect(await page.locator(".cell").count()).toBe(3);
  await page.keyboard.press("z");
  expect(await page.locator(".cell").count()).toBe(4);
});
