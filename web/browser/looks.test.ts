import axe from "axe-core";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor, writeCell } from "./page.ts";
import { ask, TOKEN } from "./server.ts";

useBrowser();

/** Where the pictures of the documentation go; without it none are kept. */
const place = process.env["SCREENSHOTS"];
const KEPT = ["light", "dark", "narrow", "first-run", "files", "checkpoints", "widgets", "verdict", "running", "sessions"];

async function picture(page: Page, name: string, height: number): Promise<void> {
  const width = page.viewportSize()?.width ?? 1180;
  await page.setViewportSize({ width, height });
  // Nothing is pointed at, and what was typed has been saved.
  await page.mouse.move(0, 0);
  await page.evaluate(() => scrollTo(0, 0));
  await page.locator(".saved").waitFor({ state: "detached" });
  const path = place !== undefined && KEPT.includes(name) ? { path: join(place, `${name}.png`) } : {};
  await page.screenshot({ ...path, animations: "disabled", caret: "hide" });
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
wine = pd.read_csv("wine.csv").drop_duplicates()
wine["cultivar"] = wine["cultivar"].str.strip().str.capitalize()
print(len(wine), "wines of", wine["cultivar"].nunique(), "cultivars")
wine.groupby("cultivar")[["alcohol", "color_intensity", "flavanoids", "proline"]].mean().round(2)`;

const PLOT = `import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for cultivar, group in wine.groupby("cultivar"):
    axes.scatter(group["flavanoids"], group["color_intensity"], s=20, alpha=0.7, label=cultivar)
axes.set(xlabel="flavanoids", ylabel="colour intensity")
axes.legend(frameon=False)
plt.show()`;

const WIDGETS = `from ipywidgets import interact
import matplotlib.pyplot as plt, numpy as np
def wave(frequency=3.0, kind=["sine", "cosine"], grid=True):
    x = np.linspace(0, 1, 400)
    plt.figure(figsize=(5.6, 2.4))
    plt.plot(x, getattr(np, {"sine": "sin", "cosine": "cos"}[kind])(2 * np.pi * frequency * x))
    plt.grid(grid)
    plt.show()
interact(wave, frequency=(0.5, 8));`;

const TEXT = "## Three wines from Piedmont\n\nWhich cultivar is it? The flavanoids $f$ and the colour intensity $c$ nearly say it alone.";

async function conversation(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Write a first cell" }).click();
  await page.keyboard.press("Escape");
  await page.keyboard.press("m");
  await page.keyboard.press("Enter");
  await page.keyboard.insertText(TEXT);
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.insertText(LOAD);
  await page.keyboard.press("Control+Enter");
  await page.frameLocator(".frame").getByText("Grignolino").waitFor();
  await isIdle(page);
  await runCell(page, PLOT);
  await page.locator(".picture img").waitFor();
  await isIdle(page);
}

test("every state of the page is legible, light and dark, wide and narrow, and axe finds nothing serious", async () => {
  const faults: Record<string, string[]> = {};
  const look = async (page: Page, name: string, height: number): Promise<void> => {
    await picture(page, name, height);
    faults[name] = await seriousFaults(page);
  };
  const light = await visitor();
  const name = "wine";
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 30_000 });
  const table = readFileSync(new URL("../../examples/data/wine.csv", import.meta.url));
  await fetch(`${inject("url")}/v1/sessions/${name}/files/wine.csv`, { method: "PUT", headers: { Authorization: `Bearer ${TOKEN}` }, body: table });
  // Where the font for Chinese is missing figures warn of it, which is not what these pictures are about.
  await ask(inject("url"), "POST", `/v1/sessions/${name}/run`, { silent: true, code: "import matplotlib; matplotlib.rcParams['font.family'] = ['sans-serif']" });
  const page = await openSession(light, name);
  await page.locator(".first-run").waitFor();
  await look(page, "first-run", 620);
  await conversation(page);
  await page.keyboard.press("Escape");
  await page.locator(".cell").nth(1).click({ position: { x: 8, y: 12 } });
  await look(page, "light", 1090);
  await page.getByRole("button", { name: "Variables", exact: true }).click();
  await page.getByRole("row", { name: /wine/ }).waitFor();
  await look(page, "variables", 860);
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await page.getByRole("button", { name: /^wine\.csv/ }).click();
  await page.getByRole("region", { name: "wine.csv" }).getByText("12.81").waitFor();
  await look(page, "files", 760);
  await page.getByRole("button", { name: "Checkpoints", exact: true }).click();
  for (const checkpoint of ["loaded", "before-the-model"]) {
    await page.getByLabel("Name of the checkpoint").fill(checkpoint);
    await page.getByRole("button", { name: "Keep", exact: true }).click();
    await page.getByRole("button", { name: `Go back to ${checkpoint}` }).waitFor();
  }
  await look(page, "checkpoints", 620);
  await page.getByRole("button", { name: "Checkpoints", exact: true }).click();
  await page.keyboard.press("?");
  await page.getByRole("dialog").getByText("Run and go to the next cell").waitFor();
  await look(page, "keys", 760);
  await page.keyboard.press("Escape");

  const moved = await openSession(light, "widgets");
  await runCell(moved, "from tqdm.notebook import tqdm\nfor row in tqdm(range(2400), desc='reading'): pass");
  await moved.locator(".widget-bar.success").waitFor();
  await runCell(moved, WIDGETS);
  await moved.locator(".picture img").waitFor();
  await isIdle(moved);
  await moved.keyboard.press("Escape");
  await look(moved, "widgets", 900);

  const dark = await visitor({ colorScheme: "dark" });
  const night = await openSession(dark, name);
  await night.locator(".picture img").waitFor();
  await night.frameLocator(".frame").getByText("Grignolino").waitFor();
  await night.locator(".markdown math").first().waitFor();
  await look(night, "dark", 1090);

  const phone = await visitor({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  const small = await openSession(phone, name);
  await small.frameLocator(".frame").getByText("Grignolino").waitFor();
  await look(small, "narrow", 780);
  expect(await small.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
  // A line of code is one line; it scrolls.
  expect(await small.locator(".cell.code .cm-line").evaluateAll((lines) => lines.every((line) => line.getBoundingClientRect().height < 30))).toBe(true);
  for (const panel of ["Files", "Variables", "Checkpoints"]) {
    await small.getByRole("button", { name: panel, exact: true }).click();
    await small.getByRole("complementary", { name: panel }).getByText(/wine\.csv|DataFrame|before-the-model/).first().waitFor();
    await look(small, `narrow, ${panel.toLowerCase()}`, 780);
  }

  const trouble = "training";
  await ask(inject("url"), "PUT", `/v1/sessions/${trouble}`, { cell_ms: 30_000, warning_ms: 29_000, ceiling_ms: 900_000 });
  const bad = await openSession(light, trouble);
  await runCell(bad, "prices = {'Barolo': 38.5}\nprices['Barbera']");
  await bad.getByText("KeyError: 'Barbera'").first().waitFor();
  await isIdle(bad);
  // Meanwhile the kernel rests, and has a checkpoint from right before the next cell.
  const login = await (await visitor()).newPage();
  await login.goto(inject("url"));
  await login.getByLabel("Token").waitFor();
  await look(login, "login", 620);
  await runCell(bad, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)");
  await shows(bad, "The kernel was killed by SIGKILL.");
  await isIdle(bad);
  await look(bad, "verdict", 520);
  await runCell(bad, "import sys, time\nfor epoch in range(1, 201):\n    print(f'\\repoch {epoch} of 200, loss {1 / epoch:.3f}', end='')\n    time.sleep(0.2)");
  await bad.getByText("Stops soon. More time?").waitFor();
  await runCell(bad, "print('when that is done')");
  await shows(bad, "Next to run");
  await look(bad, "running", 830);
  const list = await light.newPage();
  await list.goto(`${inject("url")}/`);
  await list.locator(".sessions li").nth(1).waitFor();
  await look(list, "sessions", 480);
  await bad.getByRole("button", { name: "Interrupt", exact: true }).click();
  await isIdle(bad);
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
  // An editor is made when its cell comes near the screen, which the browser says in its own time.
  await expect.poll(async () => (await page.locator(".cell .cm-content").allInnerTexts()).map((text) => text.trim())).toEqual(["20 + 3", "'second'", "between"]);
  await page.keyboard.press("c");
  await page.keyboard.press("v");
  await expect.poll(() => page.locator(".cell").count()).toBe(4);
  await page.keyboard.press("x");
  await expect.poll(() => page.locator(".cell").count()).toBe(3);
  await page.keyboard.press("z");
  await expect.poll(() => page.locator(".cell").count()).toBe(4);
});

test("as in JupyterLab: several cells at once, merging, splitting, headings, folding, and arrows that lead on", async () => {
  const page = await openSession(await visitor(), freshName("habits"));
  const sources = async (): Promise<string[]> => (await page.locator(".cell .cm-content").allInnerTexts()).map((text) => text.trim().replace(/\n+/g, "; "));
  for (const code of ["a = 1", "b = 2", "a + b"]) await writeCell(page, code);
  await page.keyboard.press("Escape");
  // Selects all three, and runs them.
  await page.keyboard.press("Shift+ArrowUp");
  await page.keyboard.press("Shift+K");
  await expect.poll(() => page.locator(".cell.chosen").count()).toBe(3);
  await page.keyboard.press("Control+Enter");
  await shows(page, "3");
  await isIdle(page);
  await page.keyboard.press("o");
  await shows(page, "Output folded away.");
  await page.keyboard.press("o");
  await page.keyboard.press("c");
  await page.keyboard.press("v");
  await expect.poll(sources).toEqual(["a = 1", "b = 2", "a + b", "a = 1", "b = 2", "a + b"]);
  await page.keyboard.press("Shift+K");
  await page.keyboard.press("d");
  await page.keyboard.press("d");
  await expect.poll(() => page.locator(".cell").count()).toBe(4);
  await page.keyboard.press("z");
  await expect.poll(() => page.locator(".cell").count()).toBe(6);
  await page.locator(".cell").first().click({ position: { x: 8, y: 12 } });
  await page.keyboard.press("Shift+M");
  await expect.poll(async () => (await sources())[0]).toBe("a = 1; b = 2");
  // The editor is left by its edges, and split where the cursor stands.
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+End");
  await page.keyboard.press("ArrowDown");
  await page.locator(".cell.edit").getByText("a + b").waitFor();
  await page.keyboard.press("ArrowUp");
  await page.locator(".cell.edit").getByText("b = 2").waitFor();
  await page.keyboard.press("Home");
  await page.keyboard.press("Control+Shift+-");
  await page.locator(".cell.edit").getByText(/^b = 2$/).waitFor();
  expect((await sources()).slice(0, 3)).toEqual(["a = 1", "b = 2", "a + b"]);
  // Shift+Tab takes back what Tab has indented.
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Tab");
  expect(await page.locator(".cell.edit .cm-line").first().textContent()).toBe("    b = 2");
  await page.keyboard.press("Shift+Tab");
  expect(await page.locator(".cell.edit .cm-line").first().textContent()).toBe("b = 2");
  await page.keyboard.press("Escape");
  await page.keyboard.press("l");
  await page.locator(".cell .cm-lineNumbers").first().waitFor();
  await page.keyboard.press("2");
  await page.locator(".cell.markdown.selected").getByText("## b = 2").waitFor();
});
