import { expect, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";

useBrowser();

test("a bar of tqdm.notebook fills up, a slider of interact changes what is shown, in every tab, and after a reload", async () => {
  const context = await visitor();
  const name = freshName("widgets");
  const page = await openSession(context, name);
  await runCell(page, "from tqdm.notebook import tqdm\nfor step in tqdm(range(40), desc='reading'): pass");
  await isIdle(page);
  const bar = page.getByRole("progressbar", { name: "FloatProgress" });
  await page.locator(".widget-bar.success").waitFor();
  expect([await bar.getAttribute("aria-valuenow"), await bar.getAttribute("aria-valuemax")]).toEqual(["40", "40"]);
  await shows(page, /40\/40/);
  await shows(page, /^reading:\s100%$/);

  await runCell(page, "from ipywidgets import interact\ndef square(x, loud=False):\n    print(f'the square of {x} is {x * x}', '!' if loud else '')\ninteract(square, x=(0, 10));");
  await isIdle(page);
  await shows(page, "the square of 5 is 25");
  const other = await openSession(context, name);
  await shows(other, "the square of 5 is 25");
  const slider = page.getByRole("slider", { name: "x" });
  await slider.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await shows(page, "the square of 7 is 49");
  await shows(other, "the square of 7 is 49");
  expect(await other.getByRole("slider", { name: "x" }).inputValue()).toBe("7");
  // One tab changes what another one has changed, and nothing is shown twice.
  await other.getByRole("checkbox", { name: "loud" }).check();
  await shows(page, "the square of 7 is 49 !");
  await page.reload();
  await shows(page, "the square of 7 is 49 !");
  expect(await page.getByText("the square of").and(page.locator(":not(.source *)")).count()).toBe(1);
  expect(await page.getByText("Written between cells").count()).toBe(0);
});

test("what a widget says is text or is drawn in a frame, one that is not known is named, and boxes that hold themselves end", async () => {
  const page = await openSession(await visitor(), freshName("hostile-widgets"));
  await runCell(page, [
    "import ipywidgets as w",
    "evil = '<img src=x onerror=\"top.stolen = 1; parent.stolen = 1; window.stolen = 1\">'",
    "box = w.VBox([w.HTML(evil), w.Label(evil), w.Button(description=evil), w.Dropdown(options=[evil]), w.IntSlider(description=evil), w.TagsInput()])",
    "box",
  ].join("\n"));
  await page.locator(".widgets iframe").waitFor();
  await shows(page, "This widget cannot be drawn here: the page does not know TagsInput.");
  expect(await page.locator(".widgets img").count()).toBe(0);
  expect(await page.locator(".widgets iframe").getAttribute("sandbox")).toBe("allow-scripts");
  await runCell(page, "loop = w.VBox([w.Label('round')])\nloop.children = (loop, loop, w.Label('and round'))\nloop");
  await isIdle(page);
  await page.locator(".widgets .widget-text").getByText("…", { exact: true }).first().waitFor();
  expect(await page.evaluate(() => "stolen" in window)).toBe(false);
});

test("ranges, lists, days, colours and pictures are picked and seen", async () => {
  const page = await openSession(await visitor(), freshName("pickers"));
  await runCell(page, [
    "import ipywidgets as w, datetime",
    "png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='",
    "import base64",
    "between = w.IntRangeSlider(value=(3, 7), max=10, description='between')",
    "grapes = w.SelectMultiple(options=['Barbera', 'Barolo', 'Nebbiolo'], value=['Barolo'], description='grapes')",
    "day = w.DatePicker(description='day')",
    "colour = w.ColorPicker(value='#00ff00', description='colour')",
    "w.VBox([between, grapes, day, colour, w.Image(value=base64.b64decode(png), format='png')])",
  ].join("\n"));
  await isIdle(page);
  await page.locator(".widgets img").waitFor();
  await page.getByRole("slider", { name: "between, from" }).focus();
  await page.keyboard.press("ArrowLeft");
  await shows(page, "2 – 7");
  // Neither passes the other.
  await page.getByRole("slider", { name: "between, to" }).fill("1");
  await shows(page, "2 – 2");
  await page.getByRole("listbox", { name: "grapes" }).selectOption(["Barbera", "Nebbiolo"]);
  await page.getByLabel("day").fill("2026-02-28");
  await page.getByLabel("colour, in words").fill("red");
  await page.keyboard.press("Enter");
  await isIdle(page);
  await runCell(page, "print(between.value, grapes.value, day.value.isoformat(), colour.value)");
  await shows(page, "(2, 2) ('Barbera', 'Nebbiolo') 2026-02-28 red");
});
