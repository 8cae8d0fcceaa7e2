// The notebook as the log tells it: `reduce(notebook, events)`. Pure. Whoever reduces the same log gets the same notebook, wherever it was cut.

import { isCellName } from "./document.ts";
import { appendText, emptyStream, skipText, utf8Length, type StreamOutput } from "./text.ts";
import type {
  Cause, CellId, Event, EventOf, Labels, Metadata, MimeBundle, Millis, Seq, StateNote, Status, StreamName, Usage, Verdict,
} from "./wire.ts";
import { NO_WIDGETS, catchNoMore, catcher, draftOf, forgetUnderWay, outlive, takeComm, takeHandled, type Widgets, type WidgetsDraft } from "./widgets/model.ts";

export interface BundleOutput {
  readonly kind: "bundle";
  readonly key: number;
  readonly data: MimeBundle;
  readonly metadata: Metadata;
  readonly displayId: string | null;
  /** Whether it is the value of the last expression. */
  readonly isResult: boolean;
  /** Where in the log it stands as it is now. */
  readonly seq: Seq;
  /** How much the page has to hold for it, in characters. */
  readonly weight: number;
}

export interface ErrorText {
  readonly kind: "error";
  readonly key: number;
  readonly seq: Seq;
  readonly weight: number;
  readonly ename: string;
  readonly evalue: string;
  readonly traceback: readonly string[];
}

/** Stands for an output that is too heavy to be held beside the others of its cell. The log has it. */
export interface FarOutput {
  readonly kind: "far";
  readonly key: number;
  readonly seq: Seq;
  readonly weight: number;
  readonly displayId: string | null;
}

/** Stands for outputs in the middle of very many, which only the log has. */
export interface ManyOutputs {
  readonly kind: "many";
  readonly key: number;
  readonly count: number;
}

export type Output = StreamOutput | BundleOutput | ErrorText | FarOutput | ManyOutputs;

/** How many outputs of a cell are held: the first ones, and the last ones. */
export const MOST_OUTPUTS = 400;
/** How much of them in all, in characters. */
export const HEAVIEST = 32 * 1024 * 1024;

export interface InputRequest {
  readonly request: string;
  readonly prompt: string;
  readonly password: boolean;
  readonly deadlineAt: Millis;
}

export interface Finished {
  readonly at: Millis;
  readonly cause: Cause | null;
  readonly state: Verdict;
  readonly usage: Usage | null;
}

/** One run of a cell. */
export interface Execution {
  readonly cell: CellId;
  /** Which cell of the notebook it is a run of: runs of one cell have one slot. */
  readonly slot: string;
  readonly code: string;
  readonly origin: string | null;
  readonly silent: boolean;
  readonly queuedSeq: Seq;
  readonly status: "queued" | "running" | "ok" | "error" | "aborted";
  readonly count: number | null;
  readonly startedSeq: Seq | null;
  readonly startedAt: Millis | null;
  readonly deadlineAt: Millis | null;
  /** By how much its deadline can still be moved. */
  readonly extendableMs: number;
  readonly isWarned: boolean;
  readonly memory: { readonly used: number; readonly limit: number } | null;
  readonly input: InputRequest | null;
  readonly stopping: { readonly reason: string; readonly rung: string } | null;
  readonly outputs: readonly Output[];
  /** `clear_output(wait=True)`: cleared when the next output comes. */
  readonly isClearPending: boolean;
  /** How much it has written to each stream, in bytes. */
  readonly written: Readonly<Record<StreamName, number>>;
  readonly note: StateNote | null;
  /** Whether the variables have gone back to before it. */
  readonly isUndone: boolean;
  readonly finished: Finished | null;
}

/** Something that happened to the session, told where it happened: behind the run that began last before it. */
export interface Notice {
  readonly seq: Seq;
  readonly at: Millis;
  readonly after: CellId | null;
  readonly kind: "restarted" | "recovered" | "rolled_back" | "lost" | "failed" | "adopted" | "ended" | "reopened" | "dropped";
  readonly cause: Cause | null;
  readonly state: Verdict | null;
  readonly text: string;
}

export interface Slot {
  readonly first: Seq;
  readonly last: CellId;
}

export interface Notebook {
  /** The last event that is in here. */
  readonly seq: Seq;
  /** When the log began, if it is known: which log it is. */
  readonly bornAt: Millis | null;
  readonly status: Status;
  readonly python: string | null;
  readonly executions: ReadonlyMap<CellId, Execution>;
  /** The last run of each slot that began. */
  readonly latest: ReadonlyMap<string, CellId>;
  /** In the order of their first runs: where in the log that was, and which was accepted last. */
  readonly slots: ReadonlyMap<string, Slot>;
  readonly running: CellId | null;
  /** Cells that wait, in order. */
  readonly queue: readonly CellId[];
  readonly lastStarted: CellId | null;
  readonly notices: readonly Notice[];
  /** What was written while no cell ran. */
  readonly background: readonly Output[];
  /** In which cells there is a display of an id. */
  readonly displays: ReadonlyMap<string, readonly CellId[]>;
  /** How often cells have finished and kernels have started: whatever is asked of the kernel is stale after that. */
  readonly finishedCount: number;
  /** How often checkpoints that somebody holds have changed: the list of them is stale after that. */
  readonly heldCount: number;
  /** Of each checkpoint that has been held: the cells whose variables it has. */
  readonly held: ReadonlyMap<string, ReadonlySet<CellId>>;
  /** The session's labels, if they were changed in this log. */
  readonly labels: Labels | null;
  readonly widgets: Widgets;
}

export const EMPTY: Notebook = {
  seq: 0, bornAt: null, status: "starting", python: null, executions: new Map(), latest: new Map(), slots: new Map(), running: null, queue: [], lastStarted: null,
  notices: [], background: [], displays: new Map(), finishedCount: 0, heldCount: 0, held: new Map(),
  labels: null, widgets: NO_WIDGETS,
};

/** What the page writes into `origin` of the cells it runs, so that the log says which cell of the notebook a run belongs to. */
export const ORIGIN = "notebook:";

const MOST_NOTICES = 200;
const MOST_BACKGROUND = 50;
/** How many runs are known besides the last ones of their cells. */
const MOST_FORMER = 500;

/** The notebook after some more of the log. */
export function reduce(notebook: Notebook, events: readonly Event[]): Notebook {
  if (events.length === 0) return notebook;
  const draft: Draft = {
    ...notebook,
    executions: new Map(notebook.executions),
    latest: new Map(notebook.latest),
    // The same object as long as it says the same.
    slots: events.some((event) => event.event === "cell_queued") ? new Map(notebook.slots) : notebook.slots,
    displays: new Map(notebook.displays),
    widgets: draftOf(notebook.widgets),
  };
  for (const event of events) {
    // Nothing twice: after a reconnect the server may send what is here already only if it was asked wrongly, but it costs nothing to look.
    if (event.seq <= draft.seq) continue;
    apply(draft, event);
    draft.seq = event.seq;
  }
  return draft;
}

type Draft = { -readonly [K in keyof Notebook]: Notebook[K] } & {
  executions: Map<CellId, Execution>;
  latest: Map<string, CellId>;
  displays: Map<string, readonly CellId[]>;
  widgets: WidgetsDraft;
};

function apply(draft: Draft, event: Event): void {
  switch (event.event) {
    case "session_opened":
      if (event.seq === 1) draft.bornAt = event.at_ms;
      draft.status = "starting";
      if (event.reopened) notice(draft, event, { kind: "reopened" });
      break;
    case "session_ended":
      draft.status = "ended";
      outlive(draft.widgets);
      notice(draft, event, { kind: "ended", text: event.reason });
      break;
    case "kernel_started":
      draft.status = "idle";
      draft.python = event.python;
      // What was asked for before may stand in its variables no more.
      draft.finishedCount += 1;
      draft.heldCount += 1;
      // A kernel that was rolled back has the widgets that it had then; what it does not know it says when it is asked.
      if (event.reason !== "rolled_back") outlive(draft.widgets);
      if (event.reason === "restarted") notice(draft, event, { kind: "restarted" });
      if (event.reason === "recovered") notice(draft, event, { kind: "recovered" });
      break;
    case "kernel_failed":
      draft.status = "dead";
      notice(draft, event, { kind: "failed", text: event.message });
      break;
    case "kernel_adopted":
      notice(draft, event, { kind: "adopted", state: event.state });
      break;
    case "kernel_lost":
      draft.status = "restarting";
      forgetUnderWay(draft.widgets);
      if (event.state.verdict === "rolled_back") undo(draft, event.state.before);
      if (event.state.verdict === "restored") restore(draft, event.state.checkpoint);
      // A restart that somebody asked for is told when the new kernel is there.
      if (event.cause.kind !== "restart") {
        notice(draft, event, { kind: event.state.verdict === "lost" ? "lost" : "rolled_back", cause: event.cause, state: event.state });
      }
      break;
    case "checkpoint_held":
      draft.heldCount += 1;
      draft.held = new Map(draft.held).set(event.name, new Set(inForce(draft)));
      break;
    case "checkpoint_dropped":
      draft.heldCount += 1;
      // Whoever drops one or restarts knows it.
      if (event.reason !== "asked" && event.reason !== "restarted") notice(draft, event, { kind: "dropped", cause: { kind: event.reason }, text: event.name });
      break;
    case "labels_changed":
      draft.labels = event.labels;
      break;
    case "cell_queued":
      queue(draft, event);
      break;
    case "cell_started":
      start(draft, event);
      break;
    case "cell_finished":
      finish(draft, event);
      break;
    case "stream":
      write(draft, event.cell, event.name, event.text, event.bytes ?? utf8Length(event.text));
      break;
    case "elided":
      elide(draft, event);
      break;
    case "display_data":
    case "execute_result":
      show(draft, event);
      break;
    case "update_display_data":
      updateDisplay(draft, event);
      break;
    case "error":
      push(draft, event);
      break;
    case "clear_output":
      if (clearCaught(draft, event.cell, event.wait)) break;
      change(draft, event.cell, (run) => (event.wait ? { ...run, isClearPending: true } : { ...run, outputs: [], isClearPending: false }));
      break;
    case "input_requested":
      change(draft, event.cell, (run) => ({
        ...run,
        input: { request: event.request, prompt: event.prompt, password: event.password, deadlineAt: event.deadline_at_ms },
      }));
      break;
    case "input_closed":
      change(draft, event.cell, (run) => ({
        ...run,
        deadlineAt: event.deadline_at_ms,
        input: run.input?.request === event.request ? null : run.input,
      }));
      break;
    case "deadline_warning":
      change(draft, event.cell, (run) => ({
        ...run, deadlineAt: event.deadline_at_ms, extendableMs: event.extendable_ms, isWarned: true,
      }));
      break;
    case "deadline_extended":
      change(draft, event.cell, (run) => ({
        ...run, deadlineAt: event.deadline_at_ms ?? run.deadlineAt, extendableMs: event.extendable_ms, isWarned: false,
      }));
      break;
    case "memory_warning":
      change(draft, event.cell, (run) => ({ ...run, memory: { used: event.used_bytes, limit: event.limit_bytes } }));
      break;
    case "interrupted":
      change(draft, event.cell, (run) => ({ ...run, stopping: { reason: event.reason, rung: event.rung } }));
      break;
    case "comm":
      takeComm(draft.widgets, event);
      break;
    case "comm_handled":
      takeHandled(draft.widgets, event);
      break;
    default:
      // A kind that a newer server knows.
      event satisfies never;
  }
}

function queue(draft: Draft, event: EventOf<"cell_queued">): void {
  const origin = event.origin ?? null;
  const named = origin?.startsWith(ORIGIN) ? origin.slice(ORIGIN.length) : "";
  const slot = isCellName(named) ? named : event.cell;
  draft.executions.set(event.cell, {
    cell: event.cell, slot, code: event.code, origin, silent: event.silent ?? false, queuedSeq: event.seq, status: "queued", count: null,
    startedSeq: null, startedAt: null, deadlineAt: null, extendableMs: 0, isWarned: false, memory: null, input: null, stopping: null, outputs: [],
    isClearPending: false, written: { stdout: 0, stderr: 0 }, note: null, isUndone: false, finished: null,
  });
  draft.queue = [...draft.queue, event.cell];
  if (event.silent !== true) (draft.slots as Map<string, Slot>).set(slot, { first: draft.slots.get(slot)?.first ?? event.seq, last: event.cell });
  if (draft.executions.size >= draft.slots.size + 2 * MOST_FORMER) forgetFormer(draft);
}

/** Forgets runs that are the last of no cell, the oldest first. */
function forgetFormer(draft: Draft): void {
  const stays = new Set([...draft.latest.values(), ...draft.queue, ...[...draft.slots.values()].map(({ last }) => last)]);
  let surplus = draft.executions.size - stays.size - MOST_FORMER;
  for (const cell of draft.executions.keys()) {
    if (surplus <= 0) return;
    if (stays.has(cell) || cell === draft.running || cell === draft.lastStarted) continue;
    draft.executions.delete(cell);
    surplus -= 1;
  }
}

function start(draft: Draft, event: EventOf<"cell_started">): void {
  draft.status = "busy";
  draft.running = event.cell;
  draft.lastStarted = event.cell;
  draft.queue = draft.queue.filter((cell) => cell !== event.cell);
  change(draft, event.cell, (run) => ({
    ...run, status: "running", count: event.execution_count, startedSeq: event.seq, startedAt: event.at_ms, deadlineAt: event.deadline_at_ms,
    extendableMs: event.ceiling_at_ms - event.deadline_at_ms, note: event.state_note ?? null,
  }));
  supersede(draft, event.cell);
}

/** The cells that have run and were not undone. */
function* inForce(draft: Draft): Iterable<CellId> {
  for (const run of draft.executions.values()) if (run.startedSeq !== null && !run.isUndone) yield run.cell;
}

/** The variables are what they were before a cell. */
function undo(draft: Draft, before: CellId): void {
  const from = draft.executions.get(before)?.startedSeq ?? Infinity;
  for (const run of draft.executions.values()) {
    if (run.startedSeq !== null && run.startedSeq >= from && !run.isUndone) draft.executions.set(run.cell, { ...run, isUndone: true });
  }
}

/** The variables are what they were when a checkpoint was held: what was undone then is undone, and what has been since is not. */
function restore(draft: Draft, checkpoint: string): void {
  const held = draft.held.get(checkpoint);
  if (held === undefined) return;
  for (const run of draft.executions.values()) {
    const isUndone = run.startedSeq !== null && !held.has(run.cell);
    if (run.isUndone !== isUndone) draft.executions.set(run.cell, { ...run, isUndone });
  }
}

/** A slot shows its last run; what the one before had shown is in the log. */
function supersede(draft: Draft, cell: CellId): void {
  const slot = draft.executions.get(cell)?.slot;
  if (slot === undefined) return;
  const before = draft.latest.get(slot);
  if (before !== undefined && before !== cell) change(draft, before, (run) => ({ ...run, outputs: [] }));
  draft.latest.set(slot, cell);
}

function finish(draft: Draft, event: EventOf<"cell_finished">): void {
  if (draft.running === event.cell) {
    draft.running = null;
    if (draft.status === "busy") draft.status = "idle";
  }
  draft.queue = draft.queue.filter((cell) => cell !== event.cell);
  draft.finishedCount += 1;
  catchNoMore(draft.widgets, event.cell);
  change(draft, event.cell, (run) => ({
    ...run, status: event.status, count: event.execution_count ?? run.count, isWarned: false, input: null, isClearPending: false,
    finished: {
      at: event.at_ms, cause: event.cause ?? null, state: event.state, usage: event.usage ?? null,
    },
  }));
  // A cell that never ran takes the place of an earlier run only where there is none.
  const run = draft.executions.get(event.cell);
  if (run !== undefined && !draft.latest.has(run.slot)) draft.latest.set(run.slot, run.cell);
}

function change(draft: Draft, cell: CellId | null, how: (run: Execution) => Execution): void {
  const run = cell === null ? undefined : draft.executions.get(cell);
  if (run !== undefined) draft.executions.set(run.cell, how(run));
}

/** Changes the outputs of a cell, or of what was written while none ran. */
function changeOutputs(draft: Draft, cell: CellId | null, how: (outputs: readonly Output[], run: Execution | null) => readonly Output[]): void {
  const widget = catcher(draft.widgets, cell);
  if (widget !== undefined) {
    const outputs = bounded(how(widget.isClearPending ? [] : widget.outputs, null), MOST_OUTPUTS);
    draft.widgets.all.set(widget.id, { ...widget, outputs, isClearPending: false });
    return;
  }
  if (cell === null || !draft.executions.has(cell)) {
    draft.background = bounded(how(draft.background, null), MOST_BACKGROUND);
    return;
  }
  change(draft, cell, (run) => {
    const outputs = run.isClearPending ? [] : run.outputs;
    return { ...run, isClearPending: false, outputs: bounded(how(outputs, run), MOST_OUTPUTS) };
  });
}

/** Clears the `Output` that catches what a cell shows, if one does. */
function clearCaught(draft: Draft, cell: CellId | null, isWaiting: boolean): boolean {
  const widget = catcher(draft.widgets, cell);
  if (widget === undefined) return false;
  draft.widgets.all.set(widget.id, isWaiting ? { ...widget, isClearPending: true } : { ...widget, outputs: [], isClearPending: false });
  return true;
}

function push(draft: Draft, event: Event & { cell: CellId | null }): void {
  changeOutputs(draft, event.cell, (outputs) => {
    const output = outputOf(event, nextKey(outputs));
    return output === null ? outputs : [...outputs, output];
  });
}

function nextKey(outputs: readonly Output[]): number {
  return (outputs.at(-1)?.key ?? 0) + 1;
}

/** The first and the last of very many outputs, with one between them that says how many there were. */
function bounded(all: readonly Output[], most: number): readonly Output[] {
  const outputs = lightened(all);
  if (outputs.length <= most) return outputs;
  const half = Math.floor(most / 2);
  const left = outputs.slice(half, outputs.length - half + 1);
  const count = left.reduce((sum, output) => sum + (output.kind === "many" ? output.count : 1), 0);
  return [...outputs.slice(0, half), { kind: "many", key: left[0]?.key ?? 0, count }, ...outputs.slice(outputs.length - half + 1)];
}

/** The outputs with the heavy ones far away, but for as many of the first and of the last as there is room for. */
function lightened(outputs: readonly Output[]): readonly Output[] {
  const weight = (output: Output): number => (output.kind === "bundle" || output.kind === "error" ? output.weight : 0);
  if (outputs.reduce((sum, output) => sum + weight(output), 0) <= HEAVIEST) return outputs;
  const held = new Set<Output>();
  for (const inOrder of [outputs, outputs.toReversed()]) {
    let room = HEAVIEST / 2;
    for (const output of inOrder) {
      room -= weight(output);
      if (room < 0) break;
      held.add(output);
    }
  }
  return outputs.map((output) => {
    if ((output.kind !== "bundle" && output.kind !== "error") || held.has(output)) return output;
    return { kind: "far", key: output.key, seq: output.seq, weight: output.weight, displayId: output.kind === "bundle" ? output.displayId : null };
  });
}

/** How heavy a value is: its characters, and something for each of its parts. */
export function weightOf(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 8;
  return Object.entries(value).reduce((sum, [key, part]) => sum + key.length + weightOf(part), 8);
}

/** What an event of the log shows by itself, read again for an output that is far. */
export function outputOf(event: Event, key: number): BundleOutput | ErrorText | null {
  if (event.event === "error") {
    const { ename, evalue, traceback } = event;
    return { kind: "error", key, seq: event.seq, weight: weightOf([ename, evalue, traceback]), ename, evalue, traceback };
  }
  if (event.event !== "display_data" && event.event !== "update_display_data" && event.event !== "execute_result") return null;
  return {
    kind: "bundle", key, data: event.data, metadata: event.metadata, displayId: event.event === "execute_result" ? null : (event.display_id ?? null),
    isResult: event.event === "execute_result", seq: event.seq, weight: weightOf(event.data),
  };
}

function write(draft: Draft, cell: CellId | null, name: StreamName, text: string, bytes: number): void {
  const run = cell === null ? undefined : draft.executions.get(cell);
  const at = run?.written[name] ?? 0;
  changeOutputs(draft, cell, (outputs) => {
    const last = outputs.at(-1);
    if (last?.kind === "stream" && last.name === name) return [...outputs.slice(0, -1), appendText(last, text, bytes)];
    return [...outputs, appendText(emptyStream(nextKey(outputs), name, at), text, bytes)];
  });
  if (run !== undefined) count(draft, run.cell, name, at + bytes);
}

function count(draft: Draft, cell: CellId, name: StreamName, bytes: number): void {
  change(draft, cell, (run) => ({ ...run, written: { ...run.written, [name]: bytes } }));
}

function elide(draft: Draft, event: EventOf<"elided">): void {
  for (const { name, from, bytes } of event.streams) {
    const run = event.cell === null ? undefined : draft.executions.get(event.cell);
    const at = from ?? run?.written[name] ?? 0;
    changeOutputs(draft, event.cell, (outputs) => {
      const index = outputs.findLastIndex((output) => output.kind === "stream" && output.name === name);
      const found = outputs[index];
      if (found?.kind === "stream") return outputs.with(index, skipText(found, bytes));
      return [...outputs, skipText(emptyStream(nextKey(outputs), name, at), bytes)];
    });
    if (run !== undefined) count(draft, run.cell, name, at + bytes);
  }
}

function show(draft: Draft, event: EventOf<"display_data"> | EventOf<"execute_result">): void {
  const displayId = event.event === "display_data" ? (event.display_id ?? null) : null;
  push(draft, event);
  if (displayId !== null && event.cell !== null) {
    const cells = draft.displays.get(displayId) ?? [];
    if (!cells.includes(event.cell)) draft.displays.set(displayId, [...cells.slice(-20), event.cell]);
  }
}

function updateDisplay(draft: Draft, event: EventOf<"update_display_data">): void {
  const isIt = (output: Output): output is BundleOutput | FarOutput => (output.kind === "bundle" || output.kind === "far") && output.displayId === event.display_id;
  const updated = (outputs: readonly Output[]): readonly Output[] => {
    const changed = outputs.map((output): Output => {
      if (!isIt(output)) return output;
      return {
        kind: "bundle", key: output.key, data: event.data, metadata: event.metadata, displayId: event.display_id, isResult: false, seq: event.seq,
        weight: weightOf(event.data),
      };
    });
    return lightened(changed);
  };
  for (const cell of draft.displays.get(event.display_id) ?? []) change(draft, cell, (run) => ({ ...run, outputs: updated(run.outputs) }));
  for (const widget of draft.widgets.all.values()) if (widget.outputs.some(isIt)) draft.widgets.all.set(widget.id, { ...widget, outputs: updated(widget.outputs) });
}

function notice(draft: Draft, event: Event, what: Partial<Notice> & Pick<Notice, "kind">): void {
  const full: Notice = { seq: event.seq, at: event.at_ms, after: draft.lastStarted, cause: null, state: null, text: "", ...what };
  draft.notices = [...draft.notices.slice(-MOST_NOTICES + 1), full];
}
