// What went wrong, and what became of the variables, in plain sentences. Pure.

import { bytes, duration, memory } from "./format.ts";
import type { Execution, Notice } from "./reduce.ts";
import type { Cause, StateNote, Verdict } from "./wire.ts";

export interface Told {
  readonly tone: "calm" | "warn" | "bad";
  readonly title: string;
  readonly detail: string;
}

/** What ended a cell or a kernel, as the beginning of a sentence. */
export function causeText(cause: Cause): string {
  switch (cause.kind) {
    case "exception": return "Ended with an exception";
    case "deadline": return "Stopped at its deadline";
    case "interrupted": return "Interrupted";
    case "cancelled": return "Taken out of the queue";
    case "earlier_error": return "Not run, because a cell before it failed";
    case "out_of_memory":
      if (cause.asked_bytes !== undefined) return `Out of memory: ${memory(cause.asked_bytes)} more were asked for, of ${memory(cause.limit_bytes ?? 0)} in all`;
      return `Out of memory: the limit is ${memory(cause.limit_bytes ?? 0)}`;
    case "killed_by_signal": return `The kernel was killed by ${cause.name ?? `signal ${cause.signal ?? ""}`}`;
    case "exited": return `The kernel exited with code ${cause.code ?? "?"}`;
    case "disk_limit": return `Out of disk: the limit is ${bytes(cause.limit_bytes ?? 0)}`;
    case "process_limit": return `Too many processes: the limit is ${cause.limit ?? "?"}`;
    case "cpu_limit": return `Stopped after ${duration(cause.limit_ms ?? 0)} of processor time, its limit`;
    case "output_limit": return `Stopped because it wrote more than ${bytes(cause.limit_bytes ?? 0)}`;
    case "unresponsive": return "The kernel could not be stopped, so its sandbox was given up";
    case "broken_protocol": return "The kernel no longer spoke as a kernel does";
    case "restart": return "Stopped by a restart";
    case "rolled_back": return `Went back to checkpoint “${cause.to ?? ""}”`;
    case "undone": return "The last cell was undone";
    case "no_kernel": return "Not run, because no kernel could be started";
    case "sandbox_lost": return "The sandbox went away";
    case "server_stopped": return "Stopped with the server";
    case "session_ended": return "Stopped because the session ended";
    default: return `Ended: ${cause.kind.replaceAll("_", " ")}`;
  }
}

/** What became of the variables. `here` is the cell that asks, to be named as "this cell". */
export function stateText(state: Verdict, here: string | null, nameOf: (cell: string) => string): string {
  switch (state.verdict) {
    case "kept": return "Your variables are kept.";
    case "rolled_back":
      return state.before === here ? "Your variables are as they were before this cell." : `Your variables are as they were before ${nameOf(state.before)}.`;
    case "restored": return `Your variables are as they were at checkpoint “${state.checkpoint}”.`;
    case "lost": return `Your variables are lost: ${state.why}.`;
  }
}

/** What is to be said under a cell that did not end well by itself; null if its output says it all. */
export function toldOfRun(run: Execution, nameOf: (cell: string) => string): Told | null {
  const { finished } = run;
  if (finished === null || finished.cause === null) return null;
  const { cause, state } = finished;
  if (cause.kind === "exception" && state.verdict === "kept") return null;
  const tone = state.verdict === "lost" ? "bad" : run.status === "aborted" || cause.kind === "interrupted" ? "calm" : "warn";
  if (run.status === "aborted") return { tone: "calm", title: `${causeText(cause)}.`, detail: "" };
  return { tone, title: `${causeText(cause)}.`, detail: stateText(state, run.cell, nameOf) };
}

export function toldOfNotice(notice: Notice, nameOf: (cell: string) => string): Told {
  const state = notice.state === null ? "" : stateText(notice.state, notice.after, nameOf);
  switch (notice.kind) {
    case "restarted": return { tone: "calm", title: "The kernel was restarted.", detail: "Variables begin anew; files are kept." };
    case "recovered": return { tone: "bad", title: "A new kernel was started.", detail: "Its variables are empty." };
    case "rolled_back": return { tone: isWanted(notice) ? "calm" : "warn", title: notice.cause === null ? "Rolled back." : `${causeText(notice.cause)}.`, detail: state };
    case "lost": return { tone: "bad", title: notice.cause === null ? "The kernel was lost." : `${causeText(notice.cause)}.`, detail: state };
    case "failed": return { tone: "bad", title: "No kernel could be started.", detail: `${notice.text} Running a cell tries again.` };
    case "adopted": return { tone: "calm", title: "The server was restarted.", detail: `The kernel went on meanwhile. ${state}` };
    case "ended": return { tone: "calm", title: endText(notice.text), detail: "Its log and files are kept; its variables are not." };
    case "dropped": return { tone: "warn", title: `Checkpoint “${notice.text}” is no longer there.`, detail: droppedText(notice.cause?.kind ?? "") };
    case "reopened": return { tone: "calm", title: "The session was opened again.", detail: "Variables begin anew." };
  }
}

/** Whether somebody asked for it. */
function isWanted({ cause }: Notice): boolean {
  return cause?.kind === "rolled_back" || cause?.kind === "undone";
}

function droppedText(reason: string): string {
  switch (reason) {
    case "memory": return "The session's memory is needed for newer ones.";
    case "process_ended": return "Code in the session has ended its process.";
    case "sandbox_lost": return "The sandbox went away.";
    default: return "";
  }
}

function endText(reason: string): string {
  switch (reason) {
    case "idle": return "The session ended because nothing had happened in it for long.";
    case "server_stopped": return "The session ended when the server stopped.";
    case "deleted": return "The session was deleted.";
    default: return "The session ended.";
  }
}

/** What the first cell after a rollback or loss is told. */
export function toldOfNote(note: StateNote, nameOf: (cell: string) => string): string {
  if (note.verdict === "rolled_back" && note.before !== undefined) return `Ran with the variables from before ${nameOf(note.before)}.`;
  if (note.verdict === "restored") return `Ran with the variables of checkpoint “${note.checkpoint ?? ""}”.`;
  return `Ran with no variables from before: ${note.why ?? "they were lost"}.`;
}
