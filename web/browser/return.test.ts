// Sessions that ended, or were made anew, while nobody or somebody looked.

import type { Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { freshName, holds, isIdle, openSession, runCell, shows, useBrowser, visitor, writeCell } from "./page.ts";
import { ask, Server, TOKEN } from "./server.ts";

useBrowser();

/** A page with a cell that has run and a draft, whose session has ended. */
async function ended(name: string): Promise<{ server: Server; page: Page }> {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const page = await openSession(await visitor(), name, server.url);
  await runCell(page, "order = [0]; print('has run')");
  await shows(page, "has run");
  await writeCell(page, "# a draft that was never run");
  await expect.poll(() => fetch(`${server.url}/v1/sessions/${name}/files/.evercell/notebook.json`, { headers: { Authorization: `Bearer ${TOKEN}` } }).then((file) => file.text())).toContain("# a draft that was never run");
  await server.restart();
  await page.locator(".banner").getByText("This session has ended.").waitFor();
  return { server, page };
}

test("whoever comes back to a session that has ended, on another machine, finds its cells and drafts", async () => {
  const name = freshName("back");
  const { server, page: former } = await ended(name);
  await former.close();
  const page = await (await visitor()).newPage();
  await page.goto(`${server.url}/#token=${TOKEN}`);
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await page.goto(`${server.url}/#/s/${name}`);
  await holds(page, "# a draft that was never run");
  await shows(page, "has run");
  expect(await page.locator(".first-run").count()).toBe(0);
  // What is written now is not in the workspace yet, which the page says.
  await writeCell(page, "# written at its end");
  await page.getByText("Kept in this browser only").waitFor();
  await page.getByRole("button", { name: "Open again" }).click();
  await page.locator(".pill.idle").waitFor();
  await page.getByText("Kept in this browser only").waitFor({ state: "detached" });
});

test("an open page of a session that has ended goes on when somebody else opens it again", async () => {
  const name = freshName("again");
  const { server, page } = await ended(name);
  await ask(server.url, "PUT", `/v1/sessions/${name}`);
  await page.locator(".pill.idle").waitFor();
  await runCell(page, "print('lives')");
  await shows(page, "lives");
});

test("all cells of a session that has ended are run in their order", async () => {
  const { page } = await ended(freshName("all"));
  for (let cell = 1; cell <= 8; cell += 1) await writeCell(page, `order.append(${cell})${cell === 8 ? "; print(order)" : ""}`);
  await page.getByRole("button", { name: "Run all" }).click();
  await shows(page, "[0, 1, 2, 3, 4, 5, 6, 7, 8]");
});

test("all cells are run in their order though the queue holds few, and stop at the one that fails", async () => {
  const server = await Server.start("--max-queued", "3");
  onTestFinished(() => server.stop());
  const page = await openSession(await visitor(), freshName("few"), server.url);
  await writeCell(page, "order = []");
  for (let cell = 1; cell <= 12; cell += 1) await writeCell(page, cell === 9 ? "1 / 0" : `order.append(${cell})`);
  await page.getByRole("button", { name: "Run all" }).click();
  await shows(page, "ZeroDivisionError");
  await isIdle(page);
  await runCell(page, "print(order)");
  await shows(page, "[1, 2, 3, 4, 5, 6, 7, 8]");
});

test("what is run while the page is cut off waits in its cell, and runs once however often the key was pressed", async () => {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const name = freshName("waits");
  const page = await openSession(await visitor(), name, server.url);
  await runCell(page, "count = 0");
  await isIdle(page);
  await server.kill();
  await page.locator(".banner").getByText("Not connected").waitFor();
  await writeCell(page, "count += 1; print('count is', count)");
  for (let press = 0; press < 3; press += 1) await page.keyboard.press("Control+Enter");
  await page.getByText("Will be sent").waitFor();
  await server.startAgain();
  await shows(page, "count is 1");
  await isIdle(page);
  expect(await page.getByText("count is 2").count()).toBe(0);
});

test("a session that was deleted and made anew under an open page is not mixed with the one before", async () => {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const name = freshName("anew");
  const context = await visitor();
  const page = await openSession(context, name, server.url);
  await runCell(page, "print('of the former')");
  await shows(page, "of the former");
  await context.setOffline(true);
  await server.kill();
  await server.startAgain();
  await ask(server.url, "DELETE", `/v1/sessions/${name}`);
  await ask(server.url, "PUT", `/v1/sessions/${name}`);
  for (let cell = 0; cell < 3; cell += 1) await ask(server.url, "POST", `/v1/sessions/${name}/run`, { code: `print('new ${cell}')` });
  await context.setOffline(false);
  await shows(page, "new 2");
  await shows(page, "new 0");
  expect(await page.getByText("of the former").count()).toBe(0);
});
