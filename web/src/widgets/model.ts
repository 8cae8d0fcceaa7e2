// ipywidgets as the log tells of them: which there are, and how each stands. Pure; part of `reduce`.
//
// A change that somebody makes on a page goes to the kernel, and so into the log: every page has it from there. What the kernel echoes of it is
// passed over, since of a slider that moves on it would come late.

import { isRecord, outputsOf } from "../output/nbformat.ts";
import type { Output } from "../reduce.ts";
import type { CellId, EventOf, Seq } from "../wire.ts";

export type WidgetState = Readonly<Record<string, unknown>>;

export interface Widget {
  readonly id: string;
  /** What kind it is, as `IntSliderModel`. */
  readonly model: string;
  readonly state: WidgetState;
  /** The last event that changed it. */
  readonly seq: Seq;
  /** Whether a kernel listens to it. */
  readonly isAlive: boolean;
  /** Why the kernel did not take the last change. */
  readonly problem: string | null;
  /** Of an `Output`: what was shown in it. */
  readonly outputs: readonly Output[];
  readonly isClearPending: boolean;
}

export interface Widgets {
  readonly all: ReadonlyMap<string, Widget>;
  /** Those that were closed, of which nothing is to be left. */
  readonly closed: ReadonlySet<string>;
  /** Changes by people that the kernel has not handled yet: where in the log they stand, and whose they are. */
  readonly unhandled: ReadonlyMap<Seq, string>;
  /** Outputs that catch what is shown now, of which cell, or between cells. The last one has it. */
  readonly catching: readonly { readonly widget: string; readonly cell: CellId | null }[];
}

export const NO_WIDGETS: Widgets = { all: new Map(), closed: new Set(), unhandled: new Map(), catching: [] };

/** How many widgets are held; the oldest go first. A progress bar is three, with as many again for their looks. */
export const MOST_WIDGETS = 5000;
const MOST_CATCHING = 50;
const MOST_UNHANDLED = 1000;

/** Widgets while a part of the log is taken: a copy for all of it, which may be thousands of changes. */
export interface WidgetsDraft {
  readonly all: Map<string, Widget>;
  readonly closed: Set<string>;
  readonly unhandled: Map<Seq, string>;
  catching: Widgets["catching"];
}

export function draftOf(widgets: Widgets): WidgetsDraft {
  return { all: new Map(widgets.all), closed: new Set(widgets.closed), unhandled: new Map(widgets.unhandled), catching: widgets.catching };
}

/** Takes a message of a comm. */
export function takeComm(draft: WidgetsDraft, event: EventOf<"comm">): void {
  const id = event.comm_id;
  const data = isRecord(event.data) ? event.data : {};
  const before = draft.all.get(id);
  const isNew = event.comm === "open" && event.target_name === "jupyter.widget";
  if (event.from === "client" && (isNew || before !== undefined)) {
    draft.unhandled.set(event.seq, id);
    dropOldest(draft.unhandled, MOST_UNHANDLED);
  }
  if (isNew) {
    const state = stateIn(data, event.buffers);
    draft.all.delete(id);
    draft.all.set(id, {
      id, model: textIn(state, "_model_name"), state, seq: event.seq, isAlive: true, problem: null, outputs: shownBy(state["outputs"]), isClearPending: false,
    });
    dropOldest(draft.all, MOST_WIDGETS);
  } else if (before !== undefined && event.comm === "close") {
    draft.all.delete(id);
    draft.closed.add(id);
    dropOldest(draft.closed, MOST_WIDGETS);
    draft.catching = draft.catching.filter(({ widget }) => widget !== id);
  } else if (before !== undefined && data["method"] === "update" && isRecord(data["state"])) {
    const change = stateIn(data, event.buffers);
    draft.all.set(id, {
      ...before, state: { ...before.state, ...change }, seq: event.seq, problem: null, ...("outputs" in change ? { outputs: shownBy(change["outputs"]) } : {}),
    });
    if (typeof change["msg_id"] === "string") {
      draft.catching = draft.catching.filter(({ widget }) => widget !== id);
      if (change["msg_id"] !== "") draft.catching = [...draft.catching.slice(-MOST_CATCHING), { widget: id, cell: event.cell }];
    }
  }
}

/** The state in a message, with those bytes in their place that are a value of their own, as base64. No widget that is drawn here has them deeper. */
function stateIn(data: WidgetState, buffers: readonly string[] = []): WidgetState {
  const state = isRecord(data["state"]) ? { ...data["state"] } : {};
  const paths = Array.isArray(data["buffer_paths"]) ? data["buffer_paths"] : [];
  paths.forEach((path: unknown, at) => {
    const bytes = buffers[at];
    if (Array.isArray(path) && path.length === 1 && typeof path[0] === "string" && bytes !== undefined) state[path[0]] = bytes;
  });
  return state;
}

function dropOldest(kept: Map<unknown, unknown> | Set<unknown>, most: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= most) break;
    kept.delete(oldest);
  }
}

/** The kernel is done with a message of a client. */
export function takeHandled(draft: WidgetsDraft, event: EventOf<"comm_handled">): void {
  const id = draft.unhandled.get(event.at_seq);
  if (id === undefined) return;
  draft.unhandled.delete(event.at_seq);
  const widget = draft.all.get(id);
  // A new object in any case: whoever waits for it looks again.
  if (widget !== undefined) draft.all.set(id, { ...widget, problem: event.error ?? null });
}

/** The kernel is gone, or is another one: nothing is under way to it any more. */
export function forgetUnderWay(draft: WidgetsDraft): void {
  draft.unhandled.clear();
  draft.catching = [];
}

/** The kernel that the widgets were in is gone: they stay as they are, and take no more changes. */
export function outlive(draft: WidgetsDraft): void {
  forgetUnderWay(draft);
  for (const [id, widget] of draft.all) if (widget.isAlive) draft.all.set(id, { ...widget, isAlive: false });
}

/** Catches nothing more for a cell that is over. */
export function catchNoMore(draft: WidgetsDraft, cell: CellId | null): void {
  if (draft.catching.some((one) => one.cell === cell)) draft.catching = draft.catching.filter((one) => one.cell !== cell);
}

/** The `Output` that catches what a cell shows now. */
export function catcher(widgets: Pick<Widgets, "all" | "catching">, cell: CellId | null): Widget | undefined {
  const found = widgets.catching.findLast((one) => one.cell === cell);
  return found === undefined ? undefined : widgets.all.get(found.widget);
}

/** Outputs that the kernel put into an `Output` by itself. */
function shownBy(value: unknown): readonly Output[] {
  return Array.isArray(value) ? outputsOf(value.slice(-200)) : [];
}

// --- what a state says, none of which is to be believed ----------------------------------------------------------------------

export function textIn(state: WidgetState, key: string): string {
  const value = state[key];
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : "";
}

export function numberIn(state: WidgetState, key: string, otherwise: number): number {
  const value = state[key];
  return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
}

export function numbersIn(state: WidgetState, key: string): number[] {
  const value = state[key];
  return Array.isArray(value) ? value.filter((one): one is number => typeof one === "number" && Number.isFinite(one)) : [];
}

export function textsIn(state: WidgetState, key: string): string[] {
  const value = state[key];
  return Array.isArray(value) ? value.map(String) : [];
}

/** The widget that another one names. */
export function reference(value: unknown): string | null {
  return typeof value === "string" && value.startsWith("IPY_MODEL_") ? value.slice("IPY_MODEL_".length) : null;
}

export function childrenOf(state: WidgetState): string[] {
  const value = state["children"];
  return Array.isArray(value) ? value.map(reference).filter((id) => id !== null) : [];
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** The text of markup that is nothing but text; null if it is more, and has to be drawn in a frame. */
export function plainMarkup(markup: string): string | null {
  if (/<[a-z!/?]/i.test(markup)) return null;
  return markup.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z]+));/gi, (whole, hex?: string, decimal?: string, name?: string) => {
    if (name !== undefined) return ENTITIES[name] ?? whole;
    const code = hex !== undefined ? Number.parseInt(hex, 16) : Number.parseInt(decimal ?? "", 10);
    return code > 0 && code < 0x110000 ? String.fromCodePoint(code) : whole;
  });
}

/** Python's way to write a number, as far as sliders use it: `d`, `.2f`, `.3g`, `.1e`, `.0%`, with a comma for thousands. */
export function formatted(value: number, format: string): string {
  const match = /^(,?)(?:\.(\d{1,2}))?([dfge%]?)$/.exec(format);
  if (match === null) return String(value);
  const digits = Math.min(Number(match[2] ?? 6), 20);
  switch (match[3]) {
    case "d": return grouped(String(Math.round(value)), match[1] === ",");
    case "f": return grouped(value.toFixed(digits), match[1] === ",");
    case "%": return `${(value * 100).toFixed(digits)}%`;
    case "e": return value.toExponential(digits);
    default: return String(Number(value.toPrecision(Math.max(1, digits))));
  }
}

function grouped(text: string, isGrouped: boolean): string {
  return isGrouped ? text.replace(/\B(?=(\d{3})+(?!\d))(?<!\.\d*)/g, ",") : text;
}
