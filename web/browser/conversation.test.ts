import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor, writeCell } from "./page.ts";
import { ask, TOKEN } from "./server.ts";

useBrowser();

test("the first conversation, by clicking and typing", async () => {
  const page = await (await visitor()).newPage();
  await page.goto(inject("url"));
  await page.getByLabel("Token").fill("wrong-token");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByRole("alert").getByText(/not the token/).waitFor();
  await page.getByLabel("Token").fill(TOKEN);
  await page.getByRole("button", { name: "Enter" }).click();
  const name = freshName("chat");
  await page.getByLabel("Name of the new session").fill(name);
  await page.getByRole("button", { name: "New session" }).click();
  await page.getByRole("button", { name: "Write a first cell" }).click();
  await page.keyboard.type('x = 6\nprint("hello")\nx * 7');
  await page.keyboard.press("Shift+Enter");
  await shows(page, "hello");
  await shows(page, "42");
  // The cell that comes next has the keyboard already.
  await page.keyboard.type("total = sum(range(10))\ntotal / 0");
  await page.keyboard.press("Control+Enter");
  await page.getByText("ZeroDivisionError: division by zero").first().waitFor();
  await isIdle(page);
  await runCell(page, "print('x is', x)");
  await shows(page, "x is 6");
  expect(page.url()).not.toContain(TOKEN);
});

test("the token comes behind the #, stays in the tab, and a tab beside it gets it", async () => {
  const context = await visitor();
  const asked: string[] = [];
  context.on("request", (request) => asked.push(request.url()));
  const page = await context.newPage();
  await page.goto(`${inject("url")}/#token=${TOKEN}`);
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  expect(page.url()).not.toContain(TOKEN);
  const other = await context.newPage();
  await other.goto(inject("url"));
  await other.getByRole("heading", { name: "Sessions" }).waitFor();
  expect(asked.filter((url) => url.includes(TOKEN))).toEqual([]);
});

test("an agent's cells appear beside one's own, and both go on in one notebook", async () => {
  const name = freshName("beside");
  const page = await openSession(await visitor(), name);
  await runCell(page, "x = 1");
  await isIdle(page);
  await writeCell(page, "# not run yet");
  await page.keyboard.press("Escape");
  await ask(inject("url"), "POST", `/v1/sessions/${name}/run`, { code: "print('the agent saw', x)", origin: "an agent" });
  await shows(page, "the agent saw 1");
  await shows(page, "run by an agent");
  await expect.poll(async () => (await page.locator(".cell .cm-content").allInnerTexts()).map((text) => text.trim())).toEqual(["x = 1", "print('the agent saw', x)", "# not run yet"]);
});

test("a rich conversation: tables, figures, progress, colours, formulas, text", async () => {
  const page = await openSession(await visitor(), freshName("rich"));
  await runCell(page, "import pandas as pd\npd.DataFrame({'city': ['Paris', 'Lyon'], 'people': [2103000, 522000]})");
  await page.frameLocator(".frame").getByText("2103000").waitFor();
  await runCell(page, "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);");
  await page.locator(".picture img").waitFor();
  await runCell(page, "import sys\nfor i in range(100):\n    sys.stdout.write(f'\\r{i + 1} of 100')\nprint('\\n\\x1b[31mred\\x1b[0m')");
  await shows(page, "100 of 100");
  expect(await page.locator(".ink-1").first().innerText()).toBe("red");
  await runCell(page, "from IPython.display import Latex, Markdown, JSON\ndisplay(Latex('$e^{i\\\\pi}+1=0$'), Markdown('**bold** words'), JSON({'key': [1, 2]}))");
  await page.frameLocator(".cell:last-of-type .frame >> nth=0").locator("math").waitFor();
  await page.frameLocator(".cell:last-of-type .frame >> nth=1").locator("strong").getByText("bold").waitFor();
  await page.frameLocator(".cell:last-of-type .frame >> nth=2").getByText("key").waitFor();
  await page.locator(".adders").getByRole("button", { name: "Text" }).click();
  await page.keyboard.insertText("# A title\n\nWith *emphasis*, `code` and $x^2$; <script>alert(1)</script>");
  await page.keyboard.press("Shift+Enter");
  await page.locator(".markdown h1").getByText("A title").waitFor();
  await page.locator(".markdown math").waitFor();
  expect(await page.locator(".markdown script").count()).toBe(0);
  await shows(page, "<script>alert(1)</script>");
});

test("interactive figures are drawn, by plotly and by Altair", async () => {
  const page = await openSession(await visitor(), freshName("figures"));
  await runCell(page, "import plotly.graph_objects as go\ngo.Figure(go.Scatter(x=[1, 2, 3], y=[3, 1, 2], name='a line'), layout={'title': 'By plotly'})");
  await page.frameLocator(".frame").getByText("By plotly").waitFor();
  await runCell(page, "import altair as alt, pandas as pd\nalt.Chart(pd.DataFrame({'kind': ['a', 'b'], 'n': [3, 5]}), title='By Altair').mark_bar().encode(x='kind', y='n')");
  await page.frameLocator(".frame >> nth=1").getByText("By Altair").waitFor();
});

test("displays are updated and cleared where they stand", async () => {
  const page = await openSession(await visitor(), freshName("displays"));
  await runCell(page, "from IPython.display import display, clear_output\nh = display('first', display_id=True)\nprint('gone')\nclear_output()\nh = display('second', display_id=True)\nh.update('third')");
  await shows(page, "'third'");
  await isIdle(page);
  expect(await page.locator(".outputs").innerText()).not.toMatch(/gone|first|second/);
});

test("a script that runs again begins with an empty frame, and what the one before had left running is gone", async () => {
  const page = await openSession(await visitor(), freshName("again"));
  const frame = page.frameLocator(".frame");
  await runCell(page, "from IPython.display import Javascript, display, clear_output\nJavascript(\"element.append('x'); setInterval(() => { element.append('.') }, 10); element.id = 'run' + Math.random()\")");
  await frame.getByText(/^x\.\.\./).waitFor();
  await isIdle(page);
  const first = await frame.locator("[id^=run]").getAttribute("id");
  await page.locator(".cell").first().getByRole("button", { name: "Run this cell" }).click();
  await expect.poll(() => frame.locator("[id^=run]").getAttribute("id")).not.toBe(first);
  await frame.getByText(/^x\.\.\./).waitFor();
  await isIdle(page);
  // In one run too, where one output takes the place of another.
  await runCell(page, "display(Javascript(\"element.append('first'); setInterval(() => element.append('first'), 10)\"))\ninput('Go on? ')\nclear_output()\ndisplay(Javascript(\"element.append('second')\"))");
  const last = page.frameLocator(".cell:last-of-type .frame");
  await last.getByText("firstfirst").waitFor();
  await page.getByLabel("Go on?").press("Enter");
  await last.getByText("second").waitFor();
  await isIdle(page);
  expect(await last.locator("#output").innerText()).toBe("second");
});

test("input() is answered in the page", async () => {
  const page = await openSession(await visitor(), freshName("input"));
  await runCell(page, "name = input('Your name? ')\nprint('Hello', name)");
  await page.getByLabel("Your name?").fill("Ada");
  await page.keyboard.press("Enter");
  await shows(page, "Hello Ada");
});

test("the live kernel completes and explains", async () => {
  const page = await openSession(await visitor(), freshName("help"));
  await runCell(page, "import math\ndef shout(word):\n    'Says it loudly.'\n    return word.upper()");
  await isIdle(page);
  await writeCell(page, "");
  await page.keyboard.type("math.facto");
  // By mouse: a key too soon after the list has come is not taken for a choice.
  await page.locator(".cm-tooltip-autocomplete li").getByText("factorial").click();
  await page.locator(".cell.edit .cm-content").getByText("math.factorial").waitFor();
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText("shout");
  await page.keyboard.press("Shift+Tab");
  await page.locator(".inspection").getByText("Says it loudly.").waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".inspection").waitFor({ state: "detached" });
});
