import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../src/api.ts";
import { Outbox } from "../src/outbox.ts";
import type { CellId } from "../src/wire.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A server that answers when it is told to. */
class Fake {
  readonly taken: string[] = [];
  readonly keys: string[] = [];
  readonly cancelled: CellId[] = [];
  readonly refusals: string[] = [];
  readonly afters: (CellId | null)[] = [];
  /** What has failed, though nobody has heard of it. */
  failed: CellId | null = null;
  opened = 0;
  /** How many cells may wait. */
  room = Infinity;
  isCutOff = false;
  isReopenRefused = false;
  readonly outbox = new Outbox(
    {
      execute: async ({ slot }, key, after) => {
        this.keys.push(key);
        this.afters.push(after);
        await Promise.resolve();
        if (this.isCutOff) throw new ApiError("unreachable", "cut off", 0);
        if (this.room <= 0) throw new ApiError("queue_full", "full", 429);
        if (after !== null && after === this.failed) throw new ApiError("earlier_failed", "failed", 409);
        this.room -= 1;
        this.taken.push(slot);
        return { cell: `run-${slot}` };
      },
      cancel: (cell) => void this.cancelled.push(cell),
      reopen: async () => {
        this.opened += 1;
        await Promise.resolve();
        if (this.isReopenRefused) throw new ApiError("too_many_sessions", "too many", 429);
      },
    },
    { onChange: () => undefined, onRefused: (error) => void this.refusals.push((error as Error).message) },
  );

  finish(slot: string, status: "ok" | "error" | "aborted" = "ok", kind?: string): void {
    this.room += 1;
    this.outbox.follow([{ seq: 1, at_ms: 1, event: "cell_finished", cell: `run-${slot}`, status, state: { verdict: "kept" }, ...(kind === undefined ? {} : { cause: { kind } }) }]);
  }
}

/** Lets happen what needs no time. */
async function settle(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0);
}

function cells(count: number): { slot: string; code: string }[] {
  return Array.from({ length: count }, (_, index) => ({ slot: `c${index}`, code: `${index}` }));
}

test("all cells of an ended session are run in their order after it was opened once", async () => {
  const fake = new Fake();
  fake.outbox.setLink("ended");
  fake.outbox.add(cells(20), true);
  await settle();
  expect([fake.opened, fake.taken]).toEqual([1, []]);
  fake.outbox.setLink("away");
  fake.outbox.setLink("live");
  await settle();
  expect([fake.opened, fake.taken]).toEqual([1, cells(20).map(({ slot }) => slot)]);
});

test("what cannot be run because the session cannot be opened is said, and does not wait for ever", async () => {
  const fake = new Fake();
  fake.isReopenRefused = true;
  fake.outbox.setLink("ended");
  fake.outbox.add(cells(3), true);
  await settle();
  expect([fake.refusals, [...fake.outbox.slots]]).toEqual([["too many"], []]);
  fake.isReopenRefused = false;
  fake.outbox.add(cells(1));
  await settle();
  expect(fake.opened).toBe(2);
});

test("what the queue has no room for waits here in its order, and goes on when cells end", async () => {
  const fake = new Fake();
  fake.room = 5;
  fake.outbox.setLink("live");
  fake.outbox.add(cells(8), true);
  await settle();
  expect([fake.taken.length, [...fake.outbox.slots]]).toEqual([5, ["c5", "c6", "c7"]]);
  fake.finish("c0");
  await settle();
  expect([...fake.outbox.slots]).toEqual(["c6", "c7"]);
  // Nothing was heard of it, and there is room all the same.
  fake.room = 9;
  await vi.advanceTimersByTimeAsync(5_000);
  expect([fake.taken, fake.refusals]).toEqual([cells(8).map(({ slot }) => slot), []]);
});

test("a cell that failed stops the rest of the same run of all, and nothing else", async () => {
  const fake = new Fake();
  fake.room = 2;
  fake.outbox.setLink("live");
  fake.outbox.add(cells(6), true);
  fake.outbox.add([{ slot: "alone", code: "x" }]);
  await settle();
  fake.finish("c0", "aborted", "cancelled");
  await settle();
  expect([...fake.outbox.slots]).toEqual(["c3", "c4", "c5", "alone"]);
  fake.finish("c1", "error", "exception");
  await settle();
  expect([fake.taken, [...fake.outbox.slots]]).toEqual([["c0", "c1", "c2", "alone"], []]);
});

test("a cell that failed before the page has heard of it stops the rest all the same", async () => {
  const fake = new Fake();
  fake.failed = "run-c2";
  fake.outbox.setLink("live");
  fake.outbox.add(cells(6), true);
  fake.outbox.add([{ slot: "alone", code: "x" }]);
  await settle();
  expect([fake.taken, [...fake.outbox.slots], fake.refusals]).toEqual([["c0", "c1", "c2", "alone"], [], []]);
  expect(fake.afters).toEqual([null, "run-c0", "run-c1", "run-c2", null]);
});

test("pressing three times while cut off runs it once; a text that was changed meanwhile is another run", async () => {
  const fake = new Fake();
  for (let press = 0; press < 3; press += 1) fake.outbox.add([{ slot: "a", code: "1" }]);
  fake.outbox.add([{ slot: "a", code: "2" }]);
  expect([...fake.outbox.slots]).toEqual(["a"]);
  fake.outbox.setLink("live");
  await settle();
  expect(fake.taken).toEqual(["a", "a"]);
});

test("what was under way when the connection broke is sent again under the same key", async () => {
  const fake = new Fake();
  fake.isCutOff = true;
  fake.outbox.setLink("live");
  fake.outbox.add([{ slot: "a", code: "1" }]);
  await settle();
  fake.isCutOff = false;
  fake.outbox.setLink("away");
  fake.outbox.setLink("live");
  await settle();
  expect([fake.taken, new Set(fake.keys).size, fake.keys.length]).toEqual([["a"], 1, 2]);
});

test("an interrupt takes out what waits, also what is on its way", async () => {
  const fake = new Fake();
  fake.outbox.setLink("live");
  fake.outbox.add(cells(3), true);
  fake.outbox.clear();
  await settle();
  expect([fake.taken, fake.cancelled, [...fake.outbox.slots]]).toEqual([["c0"], ["run-c0"], []]);
});

test("what waited when the session ended is not run by a new kernel unseen", async () => {
  const fake = new Fake();
  fake.outbox.add(cells(2));
  fake.outbox.setLink("ended");
  await settle();
  expect([fake.opened, [...fake.outbox.slots], fake.refusals.length]).toEqual([0, [], 1]);
});
