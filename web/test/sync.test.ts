import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError, type Api } from "../src/api.ts";
import { EMPTY_DOC, fromText, merge, toText, Writer, type Doc } from "../src/document.ts";
import { DocumentFile, type Reach, type Saved } from "../src/sync.ts";

/** A store of a browser, with room for so much. */
class FakeStorage {
  readonly items = new Map<string, string>();
  room = Infinity;
  isForbidden = false;
  get length(): number {
    return this.items.size;
  }
  key(index: number): string | null {
    return [...this.items.keys()][index] ?? null;
  }
  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    if (this.isForbidden) throw new DOMException("no", "SecurityError");
    const others = [...this.items].filter(([name]) => name !== key).reduce((sum, [, text]) => sum + text.length, 0);
    if (others + value.length > this.room) throw new DOMException("full", "QuotaExceededError");
    this.items.set(key, value);
  }
  removeItem(key: string): void {
    this.items.delete(key);
  }
}

/** The workspace, as far as one file. */
class Workspace {
  text: string | null = null;
  puts = 0;
  api = {
    file: (_session: string, _name: string, init: RequestInit = {}): Promise<Response> => {
      if (init.method !== "PUT") {
        if (this.text === null) return Promise.reject(new ApiError("unknown_file", "none", 404));
        const tag = `"${this.text.length}-${this.puts}"`;
        if (new Headers(init.headers).get("If-None-Match") === tag) return Promise.resolve(new Response(null, { status: 304 }));
        return Promise.resolve(new Response(this.text, { headers: { ETag: tag } }));
      }
      this.puts += 1;
      this.text = init.body as string;
      return Promise.resolve(new Response("{}"));
    },
  } as unknown as Api;
}

class Page {
  doc: Doc = EMPTY_DOC;
  saved: Saved = { state: "loading" };
  reach: Reach = { can: "write" };
  readonly writer: Writer;
  readonly file: DocumentFile;

  constructor(workspace: Workspace, name: string, log = "one") {
    this.writer = new Writer(name);
    this.file = new DocumentFile(workspace.api, "s", name, {
      doc: () => this.doc,
      onRead: (doc) => {
        this.writer.see(doc);
        this.doc = merge(this.doc, doc);
      },
      onSaved: (saved) => { this.saved = saved; },
      reach: () => this.reach,
    });
    this.file.start();
    this.file.setLog(log);
  }

  write(id: string, text: string): void {
    this.doc = this.writer.add(this.doc, id, "code", text, "V");
    this.file.changed();
  }
}

let storage: FakeStorage;
let workspace: Workspace;
beforeEach(() => {
  vi.useFakeTimers({ now: 1_800_000_000_000 });
  storage = new FakeStorage();
  workspace = new Workspace();
  vi.stubGlobal("localStorage", storage);
  vi.stubGlobal("addEventListener", () => undefined);
  vi.stubGlobal("removeEventListener", () => undefined);
  vi.stubGlobal("document", { hidden: false, addEventListener: () => undefined, removeEventListener: () => undefined });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("the copy in this browser is gone when the workspace has it all", async () => {
  const page = new Page(workspace, "a");
  page.reach = { can: "nothing", why: "no server" };
  await vi.advanceTimersByTimeAsync(100);
  page.write("x", "1");
  await vi.advanceTimersByTimeAsync(3000);
  expect([storage.items.size, page.saved]).toEqual([1, { state: "here", why: "no server" }]);
  page.reach = { can: "write" };
  await vi.advanceTimersByTimeAsync(10_000);
  expect([storage.items.size, page.saved, fromText(workspace.text ?? "")]).toEqual([0, { state: "saved" }, page.doc]);
});

test("what a page that is gone has left in this browser is taken in by the next, written, and removed", async () => {
  const first = new Page(workspace, "a");
  first.reach = { can: "nothing", why: "no server" };
  await vi.advanceTimersByTimeAsync(100);
  first.write("x", "left");
  await vi.advanceTimersByTimeAsync(3000);
  const second = new Page(workspace, "b");
  expect(second.doc.cells["x"]?.source.value).toBe("left");
  // The first is not gone after all, and goes on: what it keeps from then on stays.
  first.write("y", "more");
  await vi.advanceTimersByTimeAsync(10_000);
  expect(Object.keys(fromText(workspace.text ?? "")?.cells ?? {})).toEqual(["x"]);
  expect([...storage.items.keys()]).toEqual(["evercell:notebook:s:one:a"]);
  const other = new Page(workspace, "c", "another log");
  expect(other.doc).toEqual(EMPTY_DOC);
});

test("a browser that is full of old copies forgets the oldest; one that keeps nothing is said", async () => {
  storage.room = 3000;
  storage.items.set("evercell:notebook:old:1", `{"${"x".repeat(900)}`);
  storage.items.set("evercell:notebook:new:log:p", `1700000000001\n${"x".repeat(900)}`);
  storage.items.set("evercell:notebook:newer:log:p", `1700000000002\n${"x".repeat(900)}`);
  storage.items.set("other", "y".repeat(100));
  const page = new Page(workspace, "a");
  page.reach = { can: "nothing", why: "no server" };
  await vi.advanceTimersByTimeAsync(100);
  page.write("x", "z".repeat(900));
  await vi.advanceTimersByTimeAsync(3000);
  expect(page.saved.state).toBe("here");
  expect([...storage.items.keys()].sort()).toEqual(["evercell:notebook:newer:log:p", "evercell:notebook:s:one:a", "other"]);
  page.write("y", "z".repeat(3000));
  await vi.advanceTimersByTimeAsync(3000);
  expect(page.saved).toEqual({ state: "unkept", why: "no server, and there is no room for it in this browser" });
  storage.isForbidden = true;
  page.write("z", "1");
  await vi.advanceTimersByTimeAsync(100_000);
  expect(page.saved).toEqual({ state: "unkept", why: "no server, and this browser keeps nothing" });
});

test("cut off, or of a session that has ended, the page says where the text is, and does not say for ever that it is saving", async () => {
  const page = new Page(workspace, "a");
  await vi.advanceTimersByTimeAsync(100);
  expect(page.saved).toEqual({ state: "saved" });
  for (const reach of [{ can: "nothing", why: "cut off" }, { can: "read", why: "the session has ended" }] as const) {
    page.reach = reach;
    page.write(reach.can, "1");
    await vi.advanceTimersByTimeAsync(6000);
    expect(page.saved).toEqual({ state: "here", why: reach.why });
  }
  expect(workspace.puts).toBe(0);
});

test("of a session that has ended the notebook is read", async () => {
  const first = new Page(workspace, "a");
  first.write("x", "1");
  await vi.advanceTimersByTimeAsync(3000);
  const page = new Page(workspace, "b");
  page.reach = { can: "read", why: "the session has ended" };
  await vi.advanceTimersByTimeAsync(3000);
  expect([page.doc, page.saved]).toEqual([first.doc, { state: "saved" }]);
});

test("what is too large for a file is said, and kept here", async () => {
  const page = new Page(workspace, "a");
  await vi.advanceTimersByTimeAsync(100);
  page.write("x", "y".repeat(65 * 1024 * 1024));
  await vi.advanceTimersByTimeAsync(3000);
  expect(page.saved).toMatchObject({ state: "here", why: expect.stringContaining("larger than 64 MiB") as string });
  expect(workspace.puts).toBe(0);
});

test("a page that nobody writes in writes the file once, and not again while others leave it as it is", async () => {
  const page = new Page(workspace, "a");
  await vi.advanceTimersByTimeAsync(100);
  page.doc = page.writer.addAll(page.doc, Array.from({ length: 6000 }, (_, cell) => ({ id: `c${cell}`, kind: "code", source: "", place: "V" })));
  page.file.changed();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(workspace.puts).toBe(1);
  // Another program writes what cannot be read, and leaves out a cell: that one is put back, once.
  workspace.text = toText({ cells: Object.fromEntries(Object.entries(page.doc.cells).slice(1)) }).replace('"cells": {', '"cells": {"bad name": 3,');
  await vi.advanceTimersByTimeAsync(60_000);
  expect([workspace.puts, fromText(workspace.text ?? "")]).toEqual([2, page.doc]);
});

test("who types without a pause is saved all the same", async () => {
  const page = new Page(workspace, "a");
  await vi.advanceTimersByTimeAsync(100);
  page.write("x", "");
  for (let key = 0; key < 100; key += 1) {
    page.doc = page.writer.edit(page.doc, "x", "x".repeat(key));
    page.file.changed();
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(workspace.puts).toBeGreaterThan(0);
  expect(workspace.puts).toBeLessThan(5);
});
