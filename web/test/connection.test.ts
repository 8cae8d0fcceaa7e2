import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Api } from "../src/api.ts";
import { Connection, type Link } from "../src/connection.ts";
import type { Event, Seq, SessionBody } from "../src/wire.ts";

/** Sockets as a browser makes them. */
class FakeSocket {
  static all: FakeSocket[] = [];
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  readonly sent: string[] = [];
  constructor(readonly address: URL) {
    FakeSocket.all.push(this);
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    return;
  }
}

let answer: () => Response | Promise<Response>;
let links: Link[];
let bodies: string[];
let gaps: Seq[];
let connection: Connection;

function body(log: string, status = "idle"): Response {
  return new Response(JSON.stringify({ log, status, head: 1 }));
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  [links, bodies, gaps] = [[], [], []];
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("location", { href: "http://here/" });
  vi.stubGlobal("document", { hidden: false, addEventListener: () => undefined, removeEventListener: () => undefined });
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("removeEventListener", () => undefined);
  vi.stubGlobal("fetch", () => Promise.resolve(answer()));
  answer = () => body("one");
  connection = new Connection(new Api("token"), "s", {
    onBody: (told: SessionBody) => void bodies.push(told.log),
    after: () => 7,
    onEvents: (_events: Event[]) => undefined,
    onLink: (link) => void links.push(link),
    onGap: (after) => void gaps.push(after),
  });
});
afterEach(() => {
  connection.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function settle(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

function last(): FakeSocket {
  const socket = FakeSocket.all.at(-1);
  if (socket === undefined) throw new Error("there is no socket");
  return socket;
}

test("the log is read on with its name, and a session that was made anew is another", async () => {
  connection.open();
  await settle();
  expect(last().address.search).toBe("?after=7&log=one&view=live");
  last().onopen?.();
  answer = () => body("two");
  last().onclose?.({ code: 4409 });
  await settle();
  expect([bodies, gaps, last().address.search]).toEqual([["one", "two"], [0], "?after=7&log=two&view=live"]);
});

test("whatever answers in the place of the server, the page tries again", async () => {
  const portal = new Response("<html>Please log in</html>", { status: 200 });
  const answers = [portal, new Response("<html>no</html>", { status: 403 }), new Response("{", { status: 200 }), new Response("", { status: 502 })];
  answer = () => answers.shift() ?? body("one");
  connection.open();
  await settle(15_000);
  expect(links.filter(({ state }) => state === "waiting").length).toBe(4);
  expect(FakeSocket.all.length).toBe(1);
});

test("a session that has ended is looked at, and read on when somebody has opened it again", async () => {
  answer = () => body("one", "ended");
  connection.open();
  await settle();
  last().onopen?.();
  last().onclose?.({ code: 1000 });
  await settle(60_000);
  expect([links.at(-1)?.state, FakeSocket.all.length]).toEqual(["ended", 1]);
  answer = () => Promise.reject(new Error("no network for a moment"));
  await settle(10_000);
  answer = () => body("one");
  await settle(10_000);
  expect(FakeSocket.all.length).toBe(2);
});

test("an attempt that nobody answers is given up, and what comes late of it means nothing", async () => {
  const late: ((response: Response) => void)[] = [];
  answer = () => new Promise((resolve) => late.push(resolve));
  connection.open();
  await settle(20_000);
  expect([links.at(-1)?.state, late.length]).toEqual(["waiting", 1]);
  late[0]?.(body("one"));
  await settle();
  expect(FakeSocket.all.length).toBe(0);
  answer = () => body("one");
  await settle(1000);
  expect(FakeSocket.all.length).toBe(1);
});

test("what the server refuses in its own words is final", async () => {
  answer = () => new Response(JSON.stringify({ error: { code: "unknown_session", message: "there is none" } }), { status: 404 });
  connection.open();
  await settle(60_000);
  expect(links.map(({ state }) => state)).toEqual(["connecting", "refused"]);
});
