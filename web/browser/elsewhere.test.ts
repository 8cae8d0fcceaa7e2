// The page where not all is as on one's own machine: without TLS, behind a portal, in a browser that keeps nothing, before answers that make no sense.

import { expect, inject, test } from "vitest";
import { freshName, isIdle, openSession, runCell, shows, useBrowser, visitor, writeCell } from "./page.ts";
import { TOKEN } from "./server.ts";

useBrowser();

test("a page that came without TLS from another host, where browsers give less, writes and runs cells", async () => {
  const context = await visitor();
  await context.addInitScript(() => {
    for (const [owner, name] of [[Crypto.prototype, "randomUUID"], [Crypto.prototype, "subtle"], [Navigator.prototype, "clipboard"]] as const) {
      Object.defineProperty(owner, name, { value: undefined });
    }
    Object.defineProperty(window, "isSecureContext", { value: false });
  });
  const page = await openSession(context, freshName("plain"));
  await runCell(page, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('it runs')");
  await shows(page, "it runs");
  await page.locator(".picture img").hover();
  await page.getByRole("button", { name: "Copy figure" }).click();
  await page.getByText(/only from pages that came by HTTPS/).waitFor();
});

test("a portal that answers in the place of the server is waited for", async () => {
  const page = await openSession(await visitor(), freshName("portal"));
  await runCell(page, "x = 1");
  await isIdle(page);
  await page.route("**/v1/**", (route) => route.fulfill({ status: 200, contentType: "text/html", body: "<h1>Please log in</h1>" }));
  await page.reload();
  await page.locator(".banner").getByText("Not connected").waitFor();
  await page.unroute("**/v1/**");
  await page.locator(".pill.idle").waitFor();
  await runCell(page, "print('x is', x)");
  await shows(page, "x is 1");
});

test("a browser that keeps nothing is said, where the workspace cannot be written either", async () => {
  const context = await visitor();
  await context.addInitScript(() => {
    Storage.prototype.setItem = function (key: string, value: string): void {
      if (key.startsWith("evercell:notebook:")) throw new DOMException("full", "QuotaExceededError");
      this[key] = value;
    };
  });
  const page = await openSession(context, freshName("full"));
  await page.route("**/notebook.json", (route) => route.abort());
  await writeCell(page, "# nobody has this");
  await page.getByText("Not kept: do not close this page").waitFor();
  await page.unroute("**/notebook.json");
  await page.getByText("Not kept: do not close this page").waitFor({ state: "detached" });
});

test("a page that fails says so, and what to do, instead of being blank", async () => {
  const context = await visitor();
  const page = await context.newPage();
  await page.route("**/v1/sessions?*", (route) => route.fulfill({ json: { sessions: [null], more: false } }));
  await page.goto(`${inject("url")}/#token=${TOKEN}`);
  await page.getByRole("heading", { name: "This page has failed" }).waitFor();
  await page.unroute("**/v1/sessions?*");
  await page.getByRole("button", { name: "Load again" }).click();
  await page.getByRole("heading", { name: "Sessions" }).waitFor();
  expect(await page.locator(".broken").count()).toBe(0);
});
