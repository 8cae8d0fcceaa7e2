// What tests do with a page.

import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, onTestFinished } from "vitest";
import { CHROMIUM, TOKEN } from "./server.ts";

/** How long a state may take to come; it decides nothing but when to give up. */
export const PATIENCE = 30_000;

let browser: Browser | null = null;

/** Has a browser for the tests of a file. */
export function useBrowser(): void {
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
  });
  afterAll(() => browser?.close());
}

/** A person of their own, with nothing kept from others. What a page complains of fails the test. */
export async function visitor(options: BrowserContextOptions = {}): Promise<BrowserContext> {
  if (browser === null) throw new Error("useBrowser() comes first");
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(PATIENCE);
  const complaints: string[] = [];
  // What a script of an output throws is the output's own affair.
  context.on("weberror", (error) => { if (error.error().stack?.includes("/assets/") === true) complaints.push(String(error.error().stack)); });
  onTestFinished(async () => {
    await context.close();
    expect(complaints).toEqual([]);
  });
  return context;
}

let names = 0;

/** A name that no other test has. */
export function freshName(stem = "session"): string {
  names += 1;
  return `${stem}-${process.pid}-${names}`;
}

/** Opens a session's page as the link of a ready line does, the session being made if it is not there. */
export async function openSession(context: BrowserContext, name: string, url = inject("url")): Promise<Page> {
  await fetch(`${url}/v1/sessions/${name}`, { method: "PUT", headers: { Authorization: `Bearer ${TOKEN}` } });
  const page = await context.newPage();
  await page.goto(`${url}/#token=${TOKEN}`);
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  await page.goto(`${url}/#/s/${name}`);
  await page.locator(".pill.idle, .pill.busy").waitFor();
  return page;
}

/** Writes a new cell at the end, by clicking and typing. */
export async function writeCell(page: Page, code: string): Promise<void> {
  const first = page.getByRole("button", { name: "Write a first cell" });
  await first.or(page.locator(".adders")).first().waitFor();
  if (await first.isVisible()) await first.click();
  else await page.locator(".adders").getByRole("button", { name: "Code" }).click();
  await page.locator(".cell.edit .cm-content").waitFor();
  // As a paste: the editor closes brackets by itself while one types.
  await page.keyboard.insertText(code);
}

/** Writes a new cell at the end and runs it; returns when the server has taken it, unless the page is cut off. */
export async function runCell(page: Page, code: string): Promise<void> {
  await writeCell(page, code);
  await page.keyboard.press("Control+Enter");
  await page.locator(".cell.selected:not(.is-new), .pill.unknown").first().waitFor();
}

/** Waits until a text is in the notebook, other than in the source of a cell. */
export async function shows(page: Page, text: string | RegExp): Promise<void> {
  await page.locator(".notebook").getByText(text).and(page.locator(":not(.source *)")).first().waitFor();
}

/** Waits until a text is in the source of a cell. */
export async function holds(page: Page, text: string): Promise<void> {
  await page.locator(".source").getByText(text).first().waitFor();
}

/** Waits until what was asked to run has run. */
export async function isIdle(page: Page): Promise<void> {
  await page.locator(".page:not(:has(.cell.is-queued, .cell.is-running)) .pill.idle").waitFor();
}
