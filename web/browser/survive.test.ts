import { expect, inject, onTestFinished, test } from "vitest";
import { freshName, holds, isIdle, openSession, runCell, shows, useBrowser, visitor, writeCell } from "./page.ts";
import { ask, Server } from "./server.ts";

useBrowser();

const LINES = 40;
const COUNTING = `import time\nfor i in range(${LINES}):\n    print('line', i)\n    time.sleep(0.1)`;
const ALL = Array.from({ length: LINES }, (_, index) => `line ${index}`).join("\n");

test("a reload in the middle of a printing cell shows all of it, once", async () => {
  const page = await openSession(await visitor(), freshName("reload"));
  await runCell(page, COUNTING);
  await shows(page, "line 3");
  await page.reload();
  await page.locator(".cell.is-running").waitFor();
  await shows(page, `line ${LINES - 1}`);
  expect((await page.locator(".stream .text").innerText()).trim()).toBe(ALL);
  expect((await page.locator(".cm-content").innerText()).trim().split("\n")[0]).toBe("import time");
});

test("a server that is killed and started again under an open page: the cell runs on, nothing is lost or doubled", async () => {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const page = await openSession(await visitor(), freshName("killed"), server.url);
  await runCell(page, COUNTING);
  await shows(page, "line 3");
  await server.kill();
  await page.locator(".banner").getByText("Not connected").waitFor();
  // What is typed meanwhile is kept, and what is run meanwhile runs once when there is somebody to run it.
  await runCell(page, "print('typed while nobody listened')");
  await server.startAgain();
  await page.locator(".banner").waitFor({ state: "detached" });
  await shows(page, `line ${LINES - 1}`);
  await shows(page, "typed while nobody listened");
  await isIdle(page);
  const texts = await page.locator(".stream .text").allInnerTexts();
  expect(texts.map((text) => text.trim())).toEqual([ALL, "typed while nobody listened"]);
  await shows(page, "The server was restarted.");
});

test("a server that comes back with another token: the page says so, and goes on with the new one", async () => {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const page = await openSession(await visitor(), freshName("token"), server.url);
  await runCell(page, "x = 6 * 7");
  await isIdle(page);
  await server.kill();
  await server.startAgain("another-token");
  await page.locator(".banner").getByText(/not the token/).waitFor();
  await page.getByRole("button", { name: "Give another token" }).click();
  await page.getByLabel("Token").fill("another-token");
  await page.keyboard.press("Enter");
  await page.locator(".pill.idle").waitFor();
  await runCell(page, "print('x is', x)");
  await shows(page, "x is 42");
});

test("a clock that is hours ahead of the server's makes no deadline look past and no session old", async () => {
  const context = await visitor();
  await context.addInitScript(() => {
    const real = Date.now.bind(Date);
    Date.now = () => real() + 5 * 3_600_000;
  });
  const name = freshName("clock");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { cell_ms: 600_000, ceiling_ms: 600_000 });
  const page = await openSession(context, name);
  await runCell(page, "print(input('Ready? '))");
  await page.getByLabel("Ready?").fill("yes");
  await page.keyboard.press("Enter");
  await isIdle(page);
  await runCell(page, "import time\ntime.sleep(300)");
  await page.getByText(/^(9:\d\d|10:00) left of 10:00$/).waitFor();
  await page.getByRole("link", { name: "All sessions" }).click();
  await page.getByRole("listitem").filter({ hasText: name }).getByText(/active (just now|\d+ min ago)/).waitFor();
  await ask(inject("url"), "DELETE", `/v1/sessions/${name}`);
});

test("two tabs at once show the same, and what one writes the other has", async () => {
  const context = await visitor();
  const name = freshName("tabs");
  const [one, two] = [await openSession(context, name), await openSession(context, name)];
  await runCell(one, "x = 'from one'\nprint(x)");
  await shows(two, "from one");
  await runCell(two, "print(x, 'and two')");
  await shows(one, "from one and two");
  await writeCell(one, "# a draft that was never run");
  await holds(two, "# a draft that was never run");
  await one.keyboard.press("Escape");
  await one.keyboard.press("d");
  await one.keyboard.press("d");
  await two.getByText("# a draft that was never run").waitFor({ state: "detached" });
  await one.keyboard.press("z");
  await holds(two, "# a draft that was never run");
});

test("of two who edit one cell at once the later text stands, and the other is kept beside it", async () => {
  const context = await visitor();
  const name = freshName("editors");
  const [one, two] = [await openSession(context, name), await openSession(context, name)];
  await writeCell(one, "start");
  await holds(two, "start");
  // The second cannot read or write the document for a while, so neither sees what the other does.
  await two.route("**/notebook.json", (route) => route.abort());
  await one.keyboard.insertText(" by one");
  await two.locator(".cm-content").click();
  await two.keyboard.press("End");
  await two.keyboard.insertText(" by two");
  await two.keyboard.press("Escape");
  await two.getByText("Kept in this browser only").waitFor();
  await one.getByText("Saving…").waitFor({ state: "detached" });
  await two.unroute("**/notebook.json");
  for (const page of [one, two]) await page.getByText("This cell was edited elsewhere at the same time.").waitFor();
  const [text, other] = [await two.locator(".cm-content").innerText(), await two.locator(".other .text").innerText()];
  expect([text.trim(), other.trim()].sort()).toEqual(["start by one", "start by two"]);
  await two.getByRole("button", { name: "Keep as a cell" }).click();
  await two.locator(".other").waitFor({ state: "detached" });
  await one.locator(".other").waitFor({ state: "detached" });
  expect(await one.locator(".cell").count()).toBe(2);
});

test("undo takes back what one has typed, and not what somebody else has", async () => {
  const context = await visitor();
  const name = freshName("undo");
  const [one, two] = [await openSession(context, name), await openSession(context, name)];
  await writeCell(one, "mine");
  await holds(two, "mine");
  await one.keyboard.press("Escape");
  await two.locator(".cm-content").click();
  await two.keyboard.press("Control+End");
  await two.keyboard.insertText(" and theirs");
  await holds(one, "mine and theirs");
  await one.keyboard.press("Enter");
  await one.locator(".cell.edit").waitFor();
  await one.keyboard.press("Control+z");
  // What was typed here goes; what came meanwhile stays.
  await expect.poll(() => one.locator(".cm-content").innerText()).toBe(" and theirs");
});

test("drafts survive a browser that is closed before they are in the workspace", async () => {
  const context = await visitor();
  const name = freshName("drafts");
  const page = await openSession(context, name);
  await runCell(page, "1");
  await isIdle(page);
  await page.route("**/notebook.json", (route) => route.abort());
  await writeCell(page, "# nobody else has this");
  await page.getByText("Kept in this browser only").waitFor();
  await page.close();
  await holds(await openSession(context, name), "# nobody else has this");
});

test("a session that has ended shows its log, says so, and is opened again by a click", async () => {
  const name = freshName("ended");
  // Its cell waits for an answer, so that the session does not end before the page has come.
  const begins = async (): Promise<boolean> => {
    await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { idle_ms: 1500 });
    return ask(inject("url"), "POST", `/v1/sessions/${name}/cells`, { code: "print(input('Ready? '))" }).then(() => true, () => false);
  };
  while (!(await begins())) continue;
  const page = await openSession(await visitor(), name);
  await page.getByLabel("Ready?").fill("before");
  await page.keyboard.press("Enter");
  await shows(page, "before");
  await page.locator(".banner").getByText("This session has ended.").waitFor();
  await shows(page, "nothing had happened in it for long");
  await page.getByRole("button", { name: "Open again" }).click();
  await shows(page, "The session was opened again.");
  await shows(page, "before");
});

test("a token that is refused and a session that is not there are said, with what to do", async () => {
  const context = await visitor();
  const name = freshName("gone");
  const page = await openSession(context, name);
  await ask(inject("url"), "DELETE", `/v1/sessions/${name}`);
  await page.locator(".banner").getByText(/There is no such session|has ended/).waitFor();
  await page.evaluate(() => sessionStorage.setItem("evercell:token", "a-wrong-token"));
  await page.reload();
  await page.locator(".banner").getByText(/not the token/).waitFor();
  await page.getByRole("button", { name: "Give another token" }).click();
  await page.getByLabel("Token").waitFor();
});
