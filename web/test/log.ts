// Recorded logs, written short: `log(["cell_queued", { cell: "a", … }], …)`.

import type { Event, EventKind } from "../src/wire.ts";

export function log(...entries: [EventKind, Record<string, unknown>?][]): Event[] {
  return entries.map(([event, fields], index) => ({ seq: index + 1, at_ms: 1000 + index * 10, event, ...fields }) as unknown as Event);
}

/** The events of a cell that runs and shows something. */
export function cell(id: string, code: string, shown: [EventKind, Record<string, unknown>?][] = [], end: Record<string, unknown> = {}): [EventKind, Record<string, unknown>?][] {
  return [
    ["cell_queued", { cell: id, code, position: 0 }],
    ["cell_started", { cell: id, execution_count: 1, deadline_at_ms: 31_000, ceiling_at_ms: 601_000 }],
    ...shown.map(([kind, fields]): [EventKind, Record<string, unknown>?] => [kind, { cell: id, ...fields }]),
    ["cell_finished", { cell: id, status: "ok", state: { verdict: "kept" }, execution_count: 1, usage: { wall_ms: 1, cpu_ms: 1, output_bytes: 1 }, ...end }],
  ];
}

/** Numbers that look random and are the same each time. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
