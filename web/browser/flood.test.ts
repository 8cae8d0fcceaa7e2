import { stat } from "node:fs/promises";
import { expect, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";

useBrowser();

test("200,000 printed lines: the page holds head and tail, reads the rest by range, finds in it, and goes on", async () => {
  const name = freshName("flood");
  const context = await visitor();
  // How long the page was deaf at most. Reported only: on a machine that is busy it says more of that than of the page.
  await context.addInitScript(() => {
    const state = { longest: 0, before: performance.now() };
    const tick = (now: number): void => {
      state.longest = Math.max(state.longest, now - state.before);
      state.before = now;
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    Object.assign(window, { deafness: state });
  });
  const page = await openSession(context, name);
  await page.evaluate(() => { (window as unknown as { deafness: { longest: number } }).deafness.longest = 0; });
  await runCell(page, "for i in range(200_000): print('line', i, 'odd' if i == 123_456 else '')");
  await shows(page, /line 199999/);
  await isIdle(page);
  const longest = await page.evaluate(() => (window as unknown as { deafness: { longest: number } }).deafness.longest);
  console.info(`longest time between two animation frames while 200,000 lines came: ${Math.round(longest)} ms`);
  const held = await page.locator(".stream .text").evaluate((element) => element.textContent?.length ?? 0);
  expect(held).toBeLessThan(400_000);
  await shows(page, /not shown here/);
  const gap = page.locator(".gap");
  const before = await gap.innerText();
  await gap.getByRole("button", { name: "Show more" }).click();
  await expect.poll(() => gap.innerText()).not.toBe(before);
  await gap.getByRole("button", { name: "Open and search" }).click();
  await page.getByLabel("Find in the whole output").fill("odd");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: /line 123456 odd/ }).click();
  await page.getByRole("region", { name: "The text" }).getByText("line 123456 odd").waitFor();
  // Of very many matches the first are shown, and the others on demand.
  await page.getByLabel("Find in the whole output").fill("line 77");
  await page.keyboard.press("Enter");
  const matches = page.locator(".matches li");
  await expect.poll(() => matches.count()).toBe(100);
  await page.locator(".matches").getByRole("button", { name: "Show more" }).click();
  await expect.poll(() => matches.count()).toBe(200);
  expect(await matches.nth(150).innerText()).toMatch(/line 77\d\d/);
  await page.keyboard.press("Escape");
  await runCell(page, "print('and it goes on')");
  await shows(page, "and it goes on");
  // Who comes later sees the same.
  const later = await openSession(context, name);
  await shows(later, /line 199999/);
  await shows(later, /not shown here/);
});

test("a value, an error and a traceback of many million characters are laid out in part, with more on demand, and the page goes on", async () => {
  const page = await openSession(await visitor(), freshName("heavy"));
  const laidOut = (): Promise<number> => page.locator(".outputs").evaluateAll((all) => all.reduce((sum, element) => sum + (element.textContent?.length ?? 0), 0));
  await runCell(page, "from IPython.display import display\n'v' * 5_000_000");
  await page.locator(".value .gap").getByText("not shown here").waitFor();
  expect(await laidOut()).toBeLessThan(200_000);
  await page.locator(".value .gap").getByRole("button", { name: "Show more" }).click();
  await expect.poll(laidOut).toBeGreaterThan(300_000);
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator(".value .gap").getByRole("button", { name: "Save" }).click()]);
  expect((await stat(await download.path())).size).toBe(5_000_002);
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await runCell(page, "raise ValueError('e' * 2_000_000)");
  await page.locator(".failure-title").getByText(/^ValueError: e+…$/).waitFor();
  await isIdle(page);
  expect(await laidOut()).toBeLessThan(200_000);
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  // Together they are more than the page holds of a cell.
  await runCell(page, "for letter in 'abcdefg': display({'text/plain': letter * 6_000_000}, raw=True)");
  await page.locator(".outputs > .gap").first().waitFor();
  await isIdle(page);
  expect(await laidOut()).toBeLessThan(1_000_000);
  await page.locator(".outputs > .gap").first().getByRole("button", { name: "Show", exact: true }).click();
  await shows(page, /^[b-f]{1000}/);
});
