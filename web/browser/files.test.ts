import { readFile } from "node:fs/promises";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";

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
  const page = await openSession(await visitor(), freshName("drop"));
  await page.getByRole("button", { name: "Files", exact: true }).click();
  const transfer = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    return data;
  });
  await page.locator(".panel-body").dispatchEvent("drop", { dataTransfer: transfer });
  await page.getByRole("button", { name: /^dropped\.txt/ }).waitFor();
  await page.route("**/files/full.bin", (route) => route.fulfill({ status: 507, body: JSON.stringify({ error: { code: "quota_exceeded", message: "the workspace has no room for this" } }) }));
  await page.getByLabel("Files to upload").setInputFiles({ name: "full.bin", mimeType: "application/octet-stream", buffer: Buffer.from("x") });
  await page.getByText("the workspace has no room for this").waitFor();
  await page.route("**/files/half.bin", (route) => route.abort("connectionreset"));
  await page.getByLabel("Files to upload").setInputFiles({ name: "half.bin", mimeType: "application/octet-stream", buffer: Buffer.from("x") });
  await page.getByText("The upload was cut off; nothing of it was kept").or(page.getByText("the upload was cut off; nothing of it was kept")).first().waitFor();
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
  expect(await question.getByRole("button", { name: "Cancel" }).evaluate((element) => element === document.activeElement)).toBe(true);
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
    await page.getByRole("button", { name: "More" }).click();
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
