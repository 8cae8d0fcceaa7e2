// What the page shows: the cells of the document with what the log says of their runs, and the runs that no document knows, in their places. Pure.

import { isAlive, otherTexts, type CellKind, type Doc, type OtherText } from "./document.ts";
import { between } from "./place.ts";
import { ORIGIN, type Execution, type Notebook, type Notice } from "./reduce.ts";

export interface ShownCell {
  readonly id: string;
  readonly kind: CellKind;
  readonly source: string;
  readonly place: string;
  /** Whether the document has it, or only the log. */
  readonly isInDoc: boolean;
  /** Its last run that began, or the only one that did not. */
  readonly run: Execution | null;
  /** A run that waits behind that. */
  readonly waiting: Execution | null;
  /** Which place in the queue that has, from 1. */
  readonly position: number;
  readonly others: readonly OtherText[];
  readonly notices: readonly Notice[];
}

const NONE: readonly never[] = [];

/** The cells in their order. Those that are as in `before` are the same objects. */
export function shownCells(doc: Doc, notebook: Notebook, before: readonly ShownCell[] = NONE): readonly ShownCell[] {
  const waiting = new Map<string, { run: Execution; position: number }>();
  notebook.queue.forEach((cell, index) => {
    const run = notebook.executions.get(cell);
    if (run !== undefined) waiting.set(run.slot, { run, position: index + 1 });
  });
  const notices = new Map<string, Notice[]>();
  for (const notice of notebook.notices) {
    const run = notice.after === null ? undefined : notebook.executions.get(notice.after);
    const slot = run?.slot ?? "";
    notices.set(slot, [...(notices.get(slot) ?? []), notice]);
  }
  const known = new Map(before.map((cell) => [cell.id, cell]));
  const cells: ShownCell[] = [];
  const add = (cell: Pick<ShownCell, "id" | "kind" | "source" | "place" | "isInDoc" | "others">): void => {
    const latest = notebook.latest.get(cell.id);
    const wait = waiting.get(cell.id);
    const full: ShownCell = {
      ...cell,
      run: (latest === undefined ? undefined : notebook.executions.get(latest)) ?? null,
      waiting: wait?.run ?? null,
      position: wait?.position ?? 0,
      notices: notices.get(cell.id) ?? NONE,
    };
    const same = known.get(cell.id);
    cells.push(same !== undefined && isSame(same, full) ? same : full);
  };
  for (const [id, cell] of Object.entries(doc.cells)) {
    if (!isAlive(cell)) continue;
    add({ id, kind: cell.kind.value, source: cell.source.value, place: cell.place.value, isInDoc: true, others: otherTexts(cell) });
  }
  cells.sort(byPlace);
  placeRuns(doc, notebook, cells, add);
  return cells.length === before.length && cells.every((cell, index) => cell === before[index]) ? before : cells;
}

function byPlace(a: { place: string; id: string }, b: { place: string; id: string }): number {
  if (a.place !== b.place) return a.place < b.place ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

/** Puts runs of others, which the document does not know, behind the last cell that had been run before them. */
function placeRuns(doc: Doc, notebook: Notebook, cells: ShownCell[], add: (cell: Omit<ShownCell, "run" | "waiting" | "position" | "notices">) => void): void {
  const sources = new Map<string, Execution>();
  for (const run of notebook.executions.values()) {
    if (run.silent || doc.cells[run.slot] !== undefined) continue;
    // A slot keeps the place of its first run and shows the source of its last one.
    const first = sources.get(run.slot);
    sources.set(run.slot, first === undefined ? run : { ...run, queuedSeq: first.queuedSeq });
  }
  for (const [slot, run] of sources) {
    let after = -1;
    cells.forEach((cell, index) => {
      const first = cell.run ?? cell.waiting;
      if (first !== null && first.queuedSeq < run.queuedSeq) after = index;
    });
    const place = between(cells[after]?.place ?? "", cells.slice(after + 1).find((cell) => cell.place !== cells[after]?.place)?.place ?? null);
    const length = cells.length;
    add({ id: slot, kind: "code", source: run.code, place, isInDoc: false, others: NONE });
    const [added] = cells.splice(length, 1);
    if (added !== undefined) cells.splice(after + 1, 0, added);
  }
}

/** Who ran a cell, if it was not somebody in a notebook. */
export function authorOf(run: Execution): string | null {
  return run.origin === null ? "api" : run.origin.startsWith(ORIGIN) ? null : run.origin;
}

function isSame(a: ShownCell, b: ShownCell): boolean {
  return (
    a.kind === b.kind && a.source === b.source && a.place === b.place && a.isInDoc === b.isInDoc && a.run === b.run && a.waiting === b.waiting &&
    a.position === b.position && a.notices.length === b.notices.length && a.others.length === b.others.length &&
    a.others.every((other, index) => other.text === b.others[index]?.text && other.n === b.others[index]?.n)
  );
}
