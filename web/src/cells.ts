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
  /** Whether it is to be run and the server has not taken it yet. */
  readonly isUnsent: boolean;
  readonly others: readonly OtherText[];
  readonly notices: readonly Notice[];
}

/** What the document or the log says a cell is, whatever becomes of it. */
type Placed = Pick<ShownCell, "id" | "kind" | "source" | "place" | "isInDoc" | "others">;
/** What becomes of it. */
type State = Omit<ShownCell, keyof Placed>;

const NONE: readonly never[] = [];
const NO_SLOTS: ReadonlySet<string> = new Set();

/** The cells in their order. Those that are as in `before` are the same objects. */
export function shownCells(
  doc: Doc, notebook: Notebook, before: readonly ShownCell[] = NONE, unsent: ReadonlySet<string> = NO_SLOTS,
): readonly ShownCell[] {
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
  const cells = placed(doc, notebook).map((cell): ShownCell => {
    const latest = notebook.latest.get(cell.id);
    const wait = waiting.get(cell.id);
    const state: State = {
      run: (latest === undefined ? undefined : notebook.executions.get(latest)) ?? null,
      waiting: wait?.run ?? null,
      position: wait?.position ?? 0,
      isUnsent: unsent.has(cell.id),
      notices: notices.get(cell.id) ?? NONE,
    };
    const same = known.get(cell.id);
    return same !== undefined && isSame(same, cell, state) ? same : { ...cell, ...state };
  });
  return cells.length === before.length && cells.every((cell, index) => cell === before[index]) ? before : cells;
}

/** What was put into its order last of each document, and of which runs. */
const orders = new WeakMap<Doc, { slots: Notebook["slots"]; cells: readonly Placed[] }>();

/** The cells in their order, which changes only with the document and when something new is run. */
function placed(doc: Doc, notebook: Notebook): readonly Placed[] {
  const known = orders.get(doc);
  if (known?.slots === notebook.slots) return known.cells;
  const cells = withRuns(doc, ofDocument(doc), notebook);
  orders.set(doc, { slots: notebook.slots, cells });
  return cells;
}

function ofDocument(doc: Doc): Placed[] {
  const cells: Placed[] = [];
  for (const [id, cell] of Object.entries(doc.cells)) {
    if (!isAlive(cell)) continue;
    cells.push({ id, kind: cell.kind.value, source: cell.source.value, place: cell.place.value, isInDoc: true, others: otherTexts(cell) });
  }
  return cells.sort((a, b) => (a.place !== b.place ? (a.place < b.place ? -1 : 1) : a.id < b.id ? -1 : 1));
}

/** Puts runs of others, which the document does not know, behind the last cell that had been run before them. */
function withRuns(doc: Doc, cells: readonly Placed[], { slots, executions }: Notebook): readonly Placed[] {
  // The cells of the document in the order in which they were run first.
  const ran = cells.flatMap(({ id }, index) => {
    const first = slots.get(id)?.first;
    return first === undefined ? [] : [{ first, index }];
  });
  ran.sort((a, b) => a.first - b.first);
  const behind = new Map<number, Placed[]>();
  let [next, after] = [0, -1];
  for (const [id, { first, last }] of slots) {
    if (doc.cells[id] !== undefined) continue;
    for (let one = ran[next]; one !== undefined && one.first < first; one = ran[(next += 1)]) after = Math.max(after, one.index);
    // Cells with one place stay together: there is no place between them.
    while (after >= 0 && cells[after + 1]?.place === cells[after]?.place && after + 1 < cells.length) after += 1;
    const those = behind.get(after) ?? [];
    const place = between(those.at(-1)?.place ?? cells[after]?.place ?? "", cells[after + 1]?.place ?? null);
    those.push({ id, kind: "code", source: executions.get(last)?.code ?? "", place, isInDoc: false, others: NONE });
    behind.set(after, those);
  }
  if (behind.size === 0) return cells;
  return [...(behind.get(-1) ?? []), ...cells.flatMap((cell, index) => [cell, ...(behind.get(index) ?? [])])];
}

/** Who ran a cell, if it was not somebody in a notebook. */
export function authorOf(run: Execution): string | null {
  return run.origin === null ? "api" : run.origin.startsWith(ORIGIN) ? null : run.origin;
}

function isSame(shown: ShownCell, cell: Placed, state: State): boolean {
  return (
    shown.run === state.run && shown.waiting === state.waiting && shown.position === state.position && shown.isUnsent === state.isUnsent &&
    shown.kind === cell.kind && shown.source === cell.source && shown.place === cell.place && shown.isInDoc === cell.isInDoc &&
    shown.notices.length === state.notices.length && shown.others.length === cell.others.length &&
    shown.others.every((other, index) => other.text === cell.others[index]?.text && other.n === cell.others[index]?.n)
  );
}
