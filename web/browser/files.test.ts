import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Page } from "playwright-core";
import { expect, inject, onTestFinished, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";
import { ask, Server } from "./server.ts";

useBrowser();

async function saved(page: Page, act: () => Promise<void>): Promise<string> {
  const [download] = await Promise.all([page.waitForEvent("download"), act()]);
  return readFile(await download.path(), "utf8");
}

test("a file that is uploaded is beside the code, can be looked into, and what the code writes can be had", async () => {
  const page = await openSession(await visitor(), freshName("files"));
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await page.getByLabel("Files to upload").setInputFiles({ name: "cities.csv", mimeType: "text/csv", buffer: Buffer.from("city,people\nParis,2103000\nLyon,522000\n") });
  await page.getByRole("button", { name: /^cities\.csv/ }).click();
  const table = page.getByRole("region", { name: "cities.csv" });
  await table.getByText("whole number").waitFor();
  await table.getByText("2103000").waitFor();
  await runCell(page, "import os\nprint(len(open('cities.csv').read()))\nos.makedirs('out')\nopen('out/result.txt', 'w').write('from the code')");
  await shows(page, "38");
  await page.getByRole("button", { name: "out", exact: true }).click();
  expect(await saved(page, () => page.getByRole("button", { name: "Download result.txt" }).click())).toBe("from the code");
  await page.getByRole("button", { name: "Delete result.txt" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.locator(".tree").getByText("Empty.").waitFor();
});

test("files are dropped on the panel, and an upload that does not fit says why", async () => {
  const name = freshName("drop");
  await ask(inject("url"), "PUT", `/v1/sessions/${name}`, { workspace_bytes: 2_000_000 });
  const page = await openSession(await visitor(), name);
  await page.getByRole("button", { name: "Files", exact: true }).click();
  const transfer = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    return data;
  });
  await page.locator(".panel-body").dispatchEvent("drop", { dataTransfer: transfer });
  await page.getByRole("button", { name: /^dropped\.txt/ }).waitFor();
  // Three megabytes of noise, so that nothing on the way makes less of it, into a workspace of two.
  await page.getByLabel("Files to upload").setInputFiles({ name: "full.bin", mimeType: "application/octet-stream", buffer: randomBytes(3_000_000) });
  await page.getByText(/`full\.bin` was not uploaded: /).waitFor();
  expect(await page.getByText(/`full\.bin` was not uploaded: /).innerText()).toMatch(/full|quota|room|space|limit/);
  expect(await page.getByRole("button", { name: /^full\.bin/ }).count()).toBe(0);
});

test("an upload during which the server goes away says so, and nothing of it is kept", async () => {
  const server = await Server.start();
  onTestFinished(() => server.stop());
  const context = await visitor();
  const page = await openSession(context, freshName("half"), server.url);
  await page.getByRole("button", { name: "Files", exact: true }).click();
  // So slow that it is under way for long.
  const network = await context.newCDPSession(page);
  await network.send("Network.enable");
  await network.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 100_000 });
  await page.getByLabel("Files to upload").setInputFiles({ name: "half.bin", mimeType: "application/octet-stream", buffer: randomBytes(20_000_000) });
  await page.getByRole("progressbar", { name: "Upload of half.bin" }).waitFor();
  await server.kill();
  await page.getByText("`half.bin` was not uploaded: the upload was cut off; nothing of it was kept").waitFor();
  await network.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await server.startAgain();
  await page.locator(".banner").waitFor({ state: "detached" });
  await page.getByText("No files yet.").waitFor();
});

test("a file is not replaced by one of its name before that was asked", async () => {
  const page = await openSession(await visitor(), freshName("replace"));
  await page.getByRole("button", { name: "Files", exact: true }).click();
  const upload = (...texts: string[]): Promise<void> => page.getByLabel("Files to upload").setInputFiles(texts.map((text, index) => ({ name: `${index}.txt`, mimeType: "text/plain", buffer: Buffer.from(text) })));
  const held = async (): Promise<string> => saved(page, () => page.getByRole("button", { name: "Download 0.txt" }).click());
  await upload("mine");
  await page.getByRole("button", { name: /^0\.txt/ }).waitFor();
  await upload("another", "new");
  const question = page.getByRole("dialog", { name: "Replace 0.txt?" });
  await question.waitFor();
  await expect.poll(() => question.getByRole("button", { name: "Cancel" }).evaluate((element) => element === document.activeElement)).toBe(true);
  await question.getByRole("button", { name: "Cancel" }).click();
  // What replaces nothing is there all the same.
  await page.getByRole("button", { name: /^1\.txt/ }).waitFor();
  expect(await held()).toBe("mine");
  await upload("another");
  await question.getByRole("button", { name: "Replace" }).click();
  await page.getByText("0.txt is there").waitFor();
  expect(await held()).toBe("another");
});

test("variables are listed, and follow each cell", async () => {
  const page = await openSession(await visitor(), freshName("variables"));
  await page.getByRole("button", { name: "Variables", exact: true }).click();
  await page.getByText("None yet.").waitFor();
  await runCell(page, "import numpy as np\nmatrix = np.zeros((30, 40))");
  const row = page.getByRole("row", { name: /matrix/ });
  await row.getByText("30 × 40").waitFor();
  await runCell(page, "del matrix");
  await row.waitFor({ state: "detached" });
});

test("a notebook comes in, and goes out as notebook, script and page", async () => {
  const page = await openSession(await visitor(), freshName("exchange"));
  const notebook = { nbformat: 4, nbformat_minor: 5, metadata: {}, cells: [{ cell_type: "markdown", source: ["# Hello"], metadata: {} }, { cell_type: "code", source: "print('<6>' * 7)", metadata: {}, outputs: [], execution_count: null }] };
  const field = page.getByLabel("Notebook to import");
  await field.setInputFiles({ name: "broken.ipynb", mimeType: "application/json", buffer: Buffer.from("{") });
  await page.getByText("cannot be imported: it is not JSON").waitFor();
  await field.setInputFiles({ name: "good.ipynb", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(notebook)) });
  await page.locator(".markdown h1").getByText("Hello").waitFor();
  await page.getByRole("button", { name: "Run all" }).click();
  await shows(page, "<6><6><6><6><6><6><6>");
  await isIdle(page);
  const menu = async (item: string): Promise<string> => {
    await page.getByRole("button", { name: "More", exact: true }).click();
    return saved(page, () => page.getByRole("menuitem", { name: item }).click());
  };
  const back = JSON.parse(await menu("Save as notebook")) as typeof notebook;
  expect(back.cells.map((cell) => cell.cell_type)).toEqual(["markdown", "code"]);
  expect(JSON.stringify(back)).toContain("<6><6>");
  expect(await menu("Save as script")).toBe("# %% [markdown]\n# # Hello\n\n# %%\nprint('<6>' * 7)\n");
  const html = await menu("Save as page");
  expect(html).toContain("<h1>Hello</h1>");
  expect(html).toContain("&#60;6&#62;");
});

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

test("a notebook comes in with its outputs and pictures, drawn as safely as others, in every tab, until its cells run", async () => {
  const context = await visitor();
  const name = freshName("imported");
  const page = await openSession(context, name);
  const notebook = {
    nbformat: 4, nbformat_minor: 5, metadata: {},
    cells: [
      { cell_type: "markdown", source: ["A picture: ![of a dot](attachment:a%20dot.png)"], metadata: {}, attachments: { "a dot.png": { "image/png": PNG } } },
      {
        cell_type: "code", source: ["print('from here')"], metadata: {}, execution_count: 7,
        outputs: [
          { output_type: "stream", name: "stdout", text: ["from elsewhere\n", "<img src=x onerror=window.pwned=1>\n"] },
          { output_type: "display_data", metadata: {}, data: { "text/html": ["<p>in a frame</p><script>try { parent.pwned = 1 } catch {}</script>"], "text/plain": ["x"] } },
          { output_type: "display_data", metadata: {}, data: { "image/png": PNG, "text/plain": ["a figure"] } },
          { output_type: "error", ename: "ValueError", evalue: "<b>", traceback: ["\u001b[31mValueError\u001b[0m: <b>"] },
        ],
      },
    ],
  };
  await page.getByLabel("Notebook to import").setInputFiles({ name: "a.ipynb", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(notebook)) });
  await shows(page, "As it was imported, as cell [7]; it has not run here.");
  const other = await openSession(await visitor(), name);
  for (const one of [page, other]) {
    await shows(one, /from elsewhere/);
    await one.frameLocator(".frame").getByText("in a frame").waitFor();
    await one.locator(".picture img").waitFor();
    await one.locator(".failure-title").getByText("ValueError: <b>").waitFor();
    await one.locator(".markdown").getByRole("img", { name: "of a dot" }).waitFor();
    expect(await one.evaluate(() => (window as unknown as { pwned?: number }).pwned)).toBeUndefined();
  }
  await page.getByRole("button", { name: "More", exact: true }).click();
  const back = JSON.parse(await saved(page, () => page.getByRole("menuitem", { name: "Save as notebook" }).click())) as typeof notebook;
  expect(back.cells.map(({ source, outputs, attachments, execution_count }) => ({ source, outputs, attachments, execution_count })))
    .toEqual(notebook.cells.map(({ source, outputs, attachments, execution_count }) => ({ source, outputs, attachments, execution_count })));
  await page.getByRole("button", { name: "Run all" }).click();
  await shows(page, "from here");
  await shows(other, "from here");
  expect(await other.getByText("from elsewhere").count()).toBe(0);
});

test("what is saved has all of a long output, and the page that is saved shows Markdown, formulas and frames, and runs nothing", async () => {
  const context = await visitor();
  const page = await openSession(context, freshName("whole"));
  await runCell(page, "for i in range(40_000): print('line', i)");
  await runCell(page, [
    "from IPython.display import HTML, JSON, Latex, Markdown, display",
    "display(Markdown('**bold** words'), Latex(r'$e^{i\\pi}+1=0$'), JSON({'key': [1, 2]}), HTML('<p>in a frame</p><script>document.body.append(\"ran\")</script>'))",
    "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
  ].join("\n"));
  await page.locator(".picture img").waitFor();
  await isIdle(page);
  await shows(page, /not shown here/);
  const menu = async (item: string): Promise<string> => {
    await page.getByRole("button", { name: "More", exact: true }).click();
    return saved(page, () => page.getByRole("menuitem", { name: item }).click());
  };
  const notebook = JSON.parse(await menu("Save as notebook")) as { cells: { outputs: { text?: string[] }[] }[] };
  expect(notebook.cells[0]?.outputs[0]?.text?.join("")).toBe(Array.from({ length: 40_000 }, (_, index) => `line ${index}\n`).join(""));
  const html = await menu("Save as page");
  const place = join(await mkdtemp(join(tmpdir(), "evercell-page-")), "page.html");
  await writeFile(place, html);
  onTestFinished(() => rm(dirname(place), { recursive: true }));
  const [asked, complaints]: [string[], string[]] = [[], []];
  const alone = await context.newPage();
  alone.on("request", (request) => { if (!request.url().startsWith("data:")) asked.push(request.url()); });
  alone.on("pageerror", (error) => complaints.push(String(error)));
  await alone.goto(`file://${place}`);
  await alone.getByText("line 39999").waitFor();
  await alone.locator("strong").getByText("bold").waitFor();
  await alone.locator("math").waitFor();
  await alone.locator("details.json").getByText("key").first().waitFor();
  expect(await alone.getByRole("img", { name: "Figure" }).evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(100);
  const frame = alone.frameLocator("iframe");
  await frame.getByText("in a frame").waitFor();
  expect(await frame.locator("body").innerText()).toBe("in a frame");
  expect({ asked: asked.filter((url) => url !== `file://${place}` && url !== "about:srcdoc"), complaints }).toEqual({ asked: [], complaints: [] });
});
