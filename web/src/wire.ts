// The words of the server: events of a session's log, and what its HTTP answers look like. `test/wire.test.ts` compares the kinds of events with
// the server's own schema.

export type Seq = number;
export type Millis = number;
export type CellId = string;
export type StreamName = "stdout" | "stderr";
export type MimeBundle = Readonly<Record<string, unknown>>;
/** Words that clients keep with a session. */
export type Labels = Readonly<Record<string, string>>;
export type Metadata = Readonly<Record<string, unknown>>;

export type Verdict =
  | { verdict: "kept" }
  | { verdict: "rolled_back"; before: CellId }
  | { verdict: "restored"; checkpoint: string }
  | { verdict: "lost"; why: string };

/** What ended a cell or a kernel. Some kinds come with facts. */
export interface Cause {
  kind: string;
  limit_bytes?: number;
  peak_bytes?: number | null;
  asked_bytes?: number;
  signal?: number;
  name?: string;
  code?: number;
  limit?: number;
  limit_ms?: number;
  how?: string;
  to?: string;
}

export interface StateNote {
  verdict: string;
  before?: CellId;
  checkpoint?: string;
  why?: string;
  cause?: Cause;
  at_seq?: Seq;
}

export interface Usage {
  wall_ms: number;
  cpu_ms: number;
  peak_memory_bytes?: number;
  output_bytes: number;
}

export interface Variable {
  name: string;
  type: string;
  shape?: number[];
  length?: number;
  bytes?: number;
  preview?: string;
}

export interface VariableChanges {
  added: Variable[];
  changed: Variable[];
  removed: string[];
  total: number;
  truncated?: boolean;
}

export type Protection = { before: CellId } | { unprotected: string };

type OfCell = { cell: CellId };
type MaybeOfCell = { cell: CellId | null };

interface EventFields {
  session_opened: { session: string; reopened: boolean };
  session_ended: { reason: string };
  kernel_started: { reason: string; python: string; warm: boolean; took_ms: number };
  kernel_failed: { message: string };
  kernel_adopted: { state: Verdict };
  kernel_lost: { cause: Cause; state: Verdict };
  checkpoint_held: { name: string; execution_count: number };
  checkpoint_dropped: { name: string; reason: string };
  labels_changed: { labels: Labels };
  cell_queued: OfCell & { code: string; position: number; silent?: boolean; origin?: string };
  cell_started: OfCell & {
    execution_count: number | null;
    deadline_at_ms: Millis;
    ceiling_at_ms: Millis;
    state_note?: StateNote;
  };
  cell_finished: OfCell & {
    status: "ok" | "error" | "aborted";
    cause?: Cause;
    state: Verdict;
    execution_count?: number;
    usage?: Usage;
    variables?: VariableChanges;
    checkpoint?: Protection;
  };
  /** The live view tells with `from` and `bytes` what was written, where the text is only what is left of it. */
  stream: MaybeOfCell & { name: StreamName; text: string; from?: number; bytes?: number };
  display_data: MaybeOfCell & { data: MimeBundle; metadata: Metadata; display_id?: string };
  update_display_data: MaybeOfCell & { data: MimeBundle; metadata: Metadata; display_id: string };
  execute_result: MaybeOfCell & { execution_count: number; data: MimeBundle; metadata: Metadata };
  error: MaybeOfCell & { ename: string; evalue: string; traceback: string[] };
  clear_output: MaybeOfCell & { wait: boolean };
  input_requested: OfCell & { request: string; prompt: string; password: boolean; deadline_at_ms: Millis };
  input_closed: OfCell & { request: string; outcome: string; deadline_at_ms: Millis };
  deadline_warning: OfCell & { deadline_at_ms: Millis; extendable_ms: number };
  deadline_extended: OfCell & { by_ms: number; limit_ms: number; deadline_at_ms?: Millis; extendable_ms: number };
  memory_warning: OfCell & { used_bytes: number; limit_bytes: number };
  interrupted: MaybeOfCell & { reason: string; rung: string };
  comm: MaybeOfCell & CommMessage & { from: "kernel" | "client" };
  comm_handled: { at_seq: Seq; error?: string };
  /** Of the live view only: text that is left out for a reader who came late. */
  elided: MaybeOfCell & { first_seq: Seq; streams: { name: StreamName; from?: number; bytes: number }[] };
}

export interface CommMessage {
  comm: "open" | "msg" | "close";
  comm_id: string;
  target_name?: string;
  data?: unknown;
  metadata?: Metadata;
  buffers?: string[];
}

/** A checkpoint that somebody holds. */
export interface HeldCheckpoint {
  name: string;
  held_at_ms: Millis;
  execution_count: number;
}

export type EventKind = keyof EventFields;
export type EventOf<K extends EventKind> = { seq: Seq; at_ms: Millis; event: K } & EventFields[K];
/** An event at its place in the log. Unknown kinds are passed over by who reads them. */
export type Event = { [K in EventKind]: EventOf<K> }[EventKind];

/** Every kind that this page understands. */
export const EVENT_KINDS: readonly EventKind[] = [
  "session_opened", "session_ended", "kernel_started", "kernel_failed", "kernel_adopted", "kernel_lost", "checkpoint_held",
  "checkpoint_dropped", "labels_changed", "cell_queued", "cell_started", "cell_finished", "stream", "display_data", "update_display_data",
  "execute_result", "error", "clear_output", "input_requested", "input_closed", "deadline_warning", "deadline_extended", "memory_warning",
  "interrupted", "comm", "comm_handled", "elided",
];

export type Status = "starting" | "idle" | "busy" | "restarting" | "dead" | "ended";

export interface SessionBody {
  id: string;
  opened?: "created" | "existing" | "reopened";
  status: Status;
  problem?: string;
  state_note?: StateNote;
  running: { cell: CellId; started_at_ms: Millis; deadline_at_ms: Millis; ceiling_at_ms: Millis } | null;
  queued: CellId[];
  execution_count: number;
  /** Which log it has: another one if the session was deleted and made anew. */
  log: string;
  head: Seq;
  first: Seq;
  opened_at_ms: Millis;
  active_at_ms: Millis;
  idle_end_at_ms: Millis | null;
  settings: {
    limits: { memory_bytes: number; cpu_millis: number; workspace_bytes: number };
    timeouts: { cell_ms: number; ceiling_ms: number; warning_ms: number; idle_ms: number };
    labels?: Labels;
  };
}

/** What a session uses at a moment. */
export interface SessionUsage {
  memory_bytes: number | null;
  cpu_ms: number;
  processes: number;
  workspace_bytes: number;
}

export interface FileEntry {
  name?: string;
  path?: string;
  kind: "file" | "directory" | "link" | "special";
  bytes: number;
  modified_ms: Millis;
}

export interface OutputPart {
  stream: StreamName;
  from: number;
  next: number;
  total_bytes: number;
  complete: boolean;
  text: string;
}

export interface OutputMatches {
  matches: { byte: number; line: number; text: string }[];
  total: number;
  next: number;
  total_bytes: number;
}

export interface Completion {
  matches: { text: string; type?: string }[];
  start: number;
  end: number;
}

export interface Inspection {
  found: boolean;
  data?: MimeBundle;
}
