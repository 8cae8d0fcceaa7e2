// The WebSocket of one session: follows the log from the last event on, comes back by itself, and says truly how it stands.

import { ApiError, path, type Api } from "./api.ts";
import type { Event, Seq, SessionBody } from "./wire.ts";

export type Link =
  | { state: "connecting" }
  | { state: "live" }
  /** Cut off; `retryAt` is when the next attempt is made. */
  | { state: "waiting"; retryAt: number; why: string }
  /** The log is at its end: the session has ended. */
  | { state: "ended" }
  /** It makes no sense to try again. */
  | { state: "refused"; code: string; why: string };

interface Pending {
  text: string;
  /** Whether it may be sent again after a break: the server knows the same command by its key. */
  isRepeatable: boolean;
  resolve: (reply: unknown) => void;
  reject: (error: ApiError) => void;
}

const SUBPROTOCOL = "evercell.v1";
/** A link that says nothing to a ping for so long is dead, whatever the browser believes. */
const PING_EVERY = 15_000;
const PING_PATIENCE = 10_000;
/** How long an attempt may take. */
const CONNECT_PATIENCE = 20_000;
const LONGEST_PAUSE = 15_000;
/** How often it is asked whether a session that has ended was opened again. */
const ENDED_PAUSE = 4_000;

export interface Follower {
  /** How the session stands, before its log is read on; whether it is the one that was read is to be seen in its `log`. */
  onBody(body: SessionBody): void;
  /** After which event to go on. */
  after(): Seq;
  onEvents(events: Event[]): void;
  onLink(link: Link): void;
  /** The log cannot be read on from there: begin again, after `after`. */
  onGap(after: Seq): void;
}

export class Connection {
  private socket: WebSocket | null = null;
  private isOpen = false;
  private isClosed = false;
  private attempts = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private ping: ReturnType<typeof setTimeout> | undefined;
  private patience: ReturnType<typeof setTimeout> | undefined;
  private batch: Event[] = [];
  private frame: ReturnType<typeof setTimeout> | undefined;
  private nextRef = 1;
  private readonly pending = new Map<number, Pending>();
  private firstAvailable: Seq | null = null;
  /** Counts attempts: what comes late of a former one means nothing. */
  private attempt = 0;
  private readonly wake = (): void => this.look();

  constructor(private readonly api: Api, private readonly session: string, private readonly follower: Follower) {}

  open(): void {
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.connect();
  }

  close(): void {
    this.isClosed = true;
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    clearTimeout(this.frame);
    this.drop();
    this.rejectAll("the page has left this session");
  }

  /** Tries at once, if it waits for its next attempt. */
  retryNow(): void {
    if (this.socket === null && !this.isClosed) {
      this.attempts = 0;
      this.connect();
    }
  }

  /** Sends a command and waits for its reply. One with a `key` survives a break of the connection. */
  send<T>(op: string, fields: Record<string, unknown> = {}): Promise<T> {
    const ref = this.nextRef++;
    const text = JSON.stringify({ op, ref, ...fields });
    return new Promise<T>((resolve, reject) => {
      const isRepeatable = "key" in fields;
      if (!this.isOpen && !isRepeatable) {
        reject(new ApiError("unreachable", "the server cannot be reached at the moment", 0));
        return;
      }
      this.pending.set(ref, { text, isRepeatable, resolve: resolve as (reply: unknown) => void, reject });
      if (this.isOpen) this.socket?.send(text);
    });
  }

  private connect(): void {
    clearTimeout(this.retry);
    this.follower.onLink({ state: "connecting" });
    const attempt = (this.attempt += 1);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.lost(1006), CONNECT_PATIENCE);
    const isLate = (): boolean => this.isClosed || attempt !== this.attempt || this.socket !== null;
    // Plain HTTP first: it says which log there is now, and why there is none, where a WebSocket is only closed.
    this.api.session(this.session).then(
      (body) => {
        if (isLate()) return;
        this.follower.onBody(body);
        this.listen(body.log);
      },
      (error: unknown) => {
        if (!isLate()) this.failed(error);
      },
    );
  }

  private listen(log: string): void {
    const address = new URL(`${this.api.base}${path(this.session)}/ws`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    address.search = `?after=${this.follower.after()}&log=${encodeURIComponent(log)}&view=live`;
    const protocols = [SUBPROTOCOL];
    if (this.api.token !== "") protocols.push(`evercell.token.${encodeURIComponent(this.api.token)}`);
    const socket = new WebSocket(address, protocols);
    this.socket = socket;
    socket.onopen = () => {
      if (this.socket !== socket) return;
      clearTimeout(this.patience);
      this.isOpen = true;
      this.attempts = 0;
      this.follower.onLink({ state: "live" });
      for (const { text } of this.pending.values()) socket.send(text);
      this.schedulePing();
    };
    socket.onmessage = ({ data }) => {
      if (this.socket === socket && typeof data === "string") this.take(data);
    };
    socket.onclose = ({ code }) => {
      if (this.socket === socket) this.lost(code);
    };
  }

  private take(text: string): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof message !== "object" || message === null) return;
    if ("seq" in message) {
      this.batch.push(message as Event);
      // A timer, not an animation frame: a hidden tab goes on reading.
      this.frame ??= setTimeout(() => this.deliver(), document.hidden ? 250 : 12);
      if (this.batch.length >= 2000) this.deliver();
      return;
    }
    const reply = message as { ref?: number; ok?: boolean; reply?: unknown; error?: { code: string; message: string; first_available?: Seq } };
    if (reply.ref === undefined && reply.error !== undefined) {
      this.firstAvailable = reply.error.first_available ?? null;
      return;
    }
    const pending = this.pending.get(reply.ref ?? -1);
    if (pending === undefined) return;
    // What the log said before the reply is shown before whoever waits for it goes on.
    this.deliver();
    this.pending.delete(reply.ref ?? -1);
    if (reply.ok === true) pending.resolve(reply.reply);
    else {
      const { code, message: why, ...facts } = reply.error ?? { code: "internal", message: "the server said nothing" };
      pending.reject(new ApiError(code, why, 400, facts));
    }
  }

  private deliver(): void {
    clearTimeout(this.frame);
    this.frame = undefined;
    if (this.batch.length === 0) return;
    const events = this.batch;
    this.batch = [];
    this.follower.onEvents(events);
  }

  private lost(code: number): void {
    this.deliver();
    this.drop();
    this.rejectUnrepeatable();
    if (this.isClosed) return;
    if (code === 1000) {
      this.follower.onLink({ state: "ended" });
      this.rejectAll("the session has ended");
      this.retry = setTimeout(() => this.lookForLife(), ENDED_PAUSE);
      return;
    }
    if (code === 4409 || code === 4410) {
      this.follower.onGap(code === 4410 ? (this.firstAvailable ?? 1) - 1 : 0);
      this.connect();
      return;
    }
    this.wait("the connection was cut off");
  }

  /** The server did not say how the session stands. Only what it said in its own words is final. */
  private failed(error: unknown): void {
    clearTimeout(this.patience);
    if (error instanceof ApiError && [401, 403, 404].includes(error.status) && error.code !== "bad_answer") {
      this.follower.onLink({ state: "refused", code: error.code, why: error.message });
      this.rejectAll(error.message);
      return;
    }
    this.wait(error instanceof ApiError ? error.message : "the server cannot be reached");
  }

  private wait(why: string): void {
    this.attempts += 1;
    const pause = Math.min(LONGEST_PAUSE, 250 * 2 ** Math.min(this.attempts - 1, 8)) * (0.75 + Math.random() / 2);
    this.follower.onLink({ state: "waiting", retryAt: Date.now() + pause, why });
    this.retry = setTimeout(() => this.connect(), pause);
  }

  /** Whether somebody has opened the session again. */
  private lookForLife(): void {
    const attempt = this.attempt;
    const again = (): void => {
      if (!this.isClosed && this.socket === null && attempt === this.attempt) this.retry = setTimeout(() => this.lookForLife(), ENDED_PAUSE);
    };
    if (document.hidden) return again();
    this.api.session(this.session).then(
      ({ status }) => {
        if (status === "ended") again();
        else if (!this.isClosed && attempt === this.attempt) this.retryNow();
      },
      (error: unknown) => {
        if (error instanceof ApiError && error.status === 404 && !this.isClosed && attempt === this.attempt) this.failed(error);
        else again();
      },
    );
  }

  private drop(): void {
    clearTimeout(this.retry);
    clearTimeout(this.ping);
    clearTimeout(this.patience);
    this.attempt += 1;
    const socket = this.socket;
    this.socket = null;
    this.isOpen = false;
    if (socket !== null) {
      socket.onclose = socket.onmessage = socket.onopen = null;
      socket.close();
    }
  }

  private schedulePing(): void {
    clearTimeout(this.ping);
    this.ping = setTimeout(() => this.look(), PING_EVERY);
  }

  /** Asks the server whether it is there; after a lid was closed or a network changed, the browser may not have noticed for long. */
  private look(): void {
    if (!this.isOpen) {
      if (!document.hidden) this.retryNow();
      return;
    }
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.lost(1006), PING_PATIENCE);
    this.send("ping").then(
      () => {
        clearTimeout(this.patience);
        this.schedulePing();
      },
      () => undefined,
    );
  }

  private rejectUnrepeatable(): void {
    for (const [ref, pending] of this.pending) {
      if (pending.isRepeatable) continue;
      this.pending.delete(ref);
      pending.reject(new ApiError("unreachable", "the connection was cut off before the server answered", 0));
    }
  }

  private rejectAll(why: string): void {
    for (const pending of this.pending.values()) pending.reject(new ApiError("unreachable", why, 0));
    this.pending.clear();
  }
}
