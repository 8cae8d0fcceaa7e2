import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, PATIENCE, runCell, shows, useBrowser, visitor } from "./page.ts";
import { ask } from "./server.ts";

useBrowser();

/** Runs a cell as a program does, again and again until there was a checkpoint from right before it. Returns its value. */
async function runProtected(session: string, code: string): Promise<string> {
  for (;;) {
    const run = (await ask(inject("url"), "POST", `/v1/sessions/${session}/run`, { code })) as { cell: string; checkpoint?: { before?: string }; result: { data: Record<string, string> } };
    if (run.checkpoint?.before === run.cell) return run.result.data["text/plain"] ?? "";
  }
}

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

test("where less than 30 seconds may still be given, the key gives what is offered", async () => {
  const name = freshName("rest");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 20_000, warning_ms: 19_000, ceiling_ms: 32_500 });
  const page = await openSession(await visitor(), name);
  await runCell(page, "import time\ntime.sleep(40)");
  await page.getByRole("button", { name: "+12 s" }).waitFor();
  await page.getByRole("alert").getByText("Press E to give it 12 seconds more.").waitFor();
  await page.keyboard.press("e");
  await page.getByText("left of 0:32").waitFor();
  await page.keyboard.press("e");
  await page.getByText("This cell has all the time that it may have").first().waitFor();
  await page.getByRole("button", { name: "Interrupt", exact: true }).click();
  await isIdle(page);
});

test("a hidden tab tells of each deadline, also of a cell that was given more time before", async () => {
  const name = freshName("hidden");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 20_000, warning_ms: 19_000, ceiling_ms: 600_000 });
  const context = await visitor();
  await context.addInitScript(() => {
    const told: string[] = [];
    class Told {
      static permission = "granted";
      constructor(title: string) { told.push(title); }
    }
    Object.assign(window, { told, Notification: Told });
    Object.defineProperty(document, "hidden", { get: () => true });
  });
  const page = await openSession(context, name);
  await runCell(page, "import time\ntime.sleep(100)");
  const told = (): Promise<number> => page.evaluate(() => (window as unknown as { told: string[] }).told.length);
  await expect.poll(told).toBe(1);
  // The warning comes 19 seconds before the new deadline too.
  await page.getByText("Stops soon. More time?").waitFor();
  await page.keyboard.press("e");
  await page.getByText("Stops soon. More time?").waitFor({ state: "detached" });
  await expect.poll(told, { timeout: 2 * PATIENCE }).toBe(2);
  await page.getByRole("button", { name: "Interrupt", exact: true }).click();
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
  // Where cells follow each other quickly on a busy machine, the checkpoint may be an older one; the page says which.
  const told = await page.getByText(/Your variables are as they were before (this cell|cell \[[12]\])\./).first().innerText();
  await isIdle(page);
  await runCell(page, "print('x is', globals().get('x'))");
  await shows(page, told.includes("[1]") ? "x is None" : "x is 1");
});

test("a running cell says what it uses of what it may, and a session is called as somebody has called it", async () => {
  const name = freshName("usage");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { memory_bytes: 1024 ** 3, cpu_millis: 1000, cell_ms: 600_000, ceiling_ms: 600_000 });
  const page = await openSession(await visitor(), name);
  await runCell(page, "held = bytearray(200 * 1024 * 1024)\nwhile True: pass");
  await page.getByText(/^CPU (0\.[1-9]|1\.\d) of 1$/).waitFor();
  await page.getByText(/^[2-9]\d\d MiB of 1\.0 GiB in use$/).waitFor();
  await page.getByRole("button", { name: "Interrupt", exact: true }).click();
  await isIdle(page);
  const other = await openSession(await visitor(), name);
  await page.getByRole("heading", { name }).dblclick();
  await page.getByLabel("Title; without one").fill("  Sales of the year <b>  ");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Sales of the year <b>" }).waitFor();
  // Whoever else looks sees it at once.
  await other.getByRole("heading", { name: "Sales of the year <b>" }).waitFor();
  await page.getByRole("link", { name: "All sessions" }).click();
  const entry = page.getByRole("listitem").filter({ hasText: name });
  await entry.getByText("Sales of the year <b>").waitFor();
  await entry.getByRole("button", { name: `Rename ${name}` }).click();
  await page.getByLabel("Title; without one").fill("");
  await page.keyboard.press("Enter");
  await entry.getByText("Sales of the year").waitFor({ state: "detached" });
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

test("variables are kept under a name and gone back to, and the last cell is undone", async () => {
  const name = freshName("checkpoint");
  const page = await openSession(await visitor(), name);
  await runCell(page, "rows = [1, 2, 3]");
  await page.locator(".cell.is-ok").waitFor();
  await page.getByRole("button", { name: "Checkpoints", exact: true }).click();
  await page.getByLabel("Name of the checkpoint").fill("all rows");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Go back to all-rows" }).waitFor();
  await runCell(page, "rows.clear()");
  await page.locator(".cell.is-ok").nth(1).waitFor();
  await page.getByRole("button", { name: "Go back to all-rows" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Go back" }).click();
  await shows(page, "Your variables are as they were at checkpoint “all-rows”.");
  await isIdle(page);
  await runCell(page, "print('rows', rows)");
  await shows(page, "rows [1, 2, 3]");
  await isIdle(page);
  const last = await runProtected(name, "steps = globals().get('steps', 0) + 1; sum(range(10**6)); steps");
  await page.locator(".pill.idle").waitFor();
  await page.getByRole("button", { name: "Undo the last cell" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Undo it" }).click();
  await shows(page, "The last cell was undone.");
  await page.locator(".cell.is-undone").getByText("undone: the variables are as they were before it").last().waitFor();
  await isIdle(page);
  await runCell(page, "print('steps', globals().get('steps', 0))");
  await shows(page, `steps ${Number(last) - 1}`);
  await isIdle(page);
  await page.getByRole("button", { name: "Drop all-rows" }).click();
  await page.getByRole("button", { name: "Go back to all-rows" }).waitFor({ state: "detached" });
});
