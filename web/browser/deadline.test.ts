import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";
import { ask } from "./server.ts";

useBrowser();

test("one key gives a cell more time when its deadline is near", async () => {
  const name = freshName("extend");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 10_000, warning_ms: 9_000, ceiling_ms: 120_000 });
  const page = await openSession(await visitor(), name);
  await runCell(page, "import time\ntime.sleep(11)\nprint('it had the time')");
  await page.getByText("Stops soon. More time?").waitFor();
  await page.keyboard.press("e");
  await page.getByText("left of 0:40").waitFor();
  expect(await page.getByText("Stops soon. More time?").count()).toBe(0);
  await shows(page, "it had the time");
  await isIdle(page);
});

test("a cell that goes wrong says what ended it and what became of the variables", async () => {
  const name = freshName("verdict");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 1000 });
  const page = await openSession(await visitor(), name);
  await runCell(page, "x = 1");
  await isIdle(page);
  await runCell(page, "while True: pass");
  await shows(page, "Stopped at its deadline.");
  await shows(page, "Your variables are kept.");
  await isIdle(page);
  await runCell(page, "import os, signal\nx = 2\nos.kill(os.getpid(), signal.SIGKILL)");
  await shows(page, "The kernel was killed by SIGKILL.");
  await shows(page, "Your variables are as they were before this cell.");
  await isIdle(page);
  await runCell(page, "print('x is', x)");
  await shows(page, "x is 1");
});

test("what runs can be interrupted, and what waits can be taken out of the queue", async () => {
  const page = await openSession(await visitor(), freshName("queue"));
  await runCell(page, "import time\ntime.sleep(25)");
  await page.locator(".cell.is-running").waitFor();
  await runCell(page, "print('first')");
  await runCell(page, "print('second')");
  await shows(page, "Next to run");
  await shows(page, "Waiting: 1 cell before it");
  await page.getByRole("button", { name: "Take out of the queue" }).last().click();
  await shows(page, "Taken out of the queue.");
  await page.locator(".cell").first().click({ position: { x: 8, y: 12 } });
  await page.keyboard.press("i");
  await page.keyboard.press("i");
  await shows(page, "Interrupted.");
  await isIdle(page);
  expect(await page.locator(".stream").count()).toBe(0);
});

test("a restart asks first, and says where variables begin anew", async () => {
  const page = await openSession(await visitor(), freshName("restart"));
  await runCell(page, "x = 1");
  await isIdle(page);
  await page.keyboard.press("0");
  await page.keyboard.press("0");
  await page.getByRole("dialog").getByRole("button", { name: "Restart" }).click();
  await shows(page, "The kernel was restarted.");
  await runCell(page, "x");
  await page.getByText("NameError: name 'x' is not defined").first().waitFor();
});
