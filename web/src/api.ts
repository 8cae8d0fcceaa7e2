// HTTP with the server. The token goes in a header, never into an address.

import type { Completion, Event, FileEntry, Inspection, Labels, OutputMatches, OutputPart, SessionBody, SessionUsage, StreamName } from "./wire.ts";

/** A refusal of the server, or that it cannot be reached (`unreachable`). */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(readonly code: string, message: string, readonly status: number, readonly facts: Readonly<Record<string, unknown>> = {}) {
    super(message);
  }
}

export interface Answers {
  complete: Completion;
  inspect: Inspection;
}

export class Api {
  /** By how much the clock here is ahead of the server's, in milliseconds; 0 unless they differ by more than such a comparison may. */
  skew = 0;

  constructor(readonly token: string, readonly base = "") {}

  /** Now, by the server's clock. */
  now(): number {
    return Date.now() - this.skew;
  }

  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.token !== "") headers.set("Authorization", `Bearer ${this.token}`);
    let response: Response;
    const before = Date.now();
    try {
      response = await fetch(this.base + path, { ...init, headers, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ApiError("unreachable", "the server cannot be reached", 0);
    }
    this.compareClocks(before, response.headers.get("Date"));
    if (response.ok || response.status === 304) return response;
    throw await errorOf(response);
  }

  private compareClocks(before: number, date: string | null): void {
    // The header has whole seconds, so less than two of difference mean nothing.
    const skew = (before + Date.now()) / 2 - (Date.parse(date ?? "") + 500);
    if (Math.abs(skew - this.skew) > 2000) this.skew = Math.abs(skew) > 2000 ? skew : 0;
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.fetch(path, body === undefined ? { method } : { method, body: JSON.stringify(body) });
    try {
      return (await response.json()) as T;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ApiError("bad_answer", "what answered was cut off, or is not the server", 0);
    }
  }

  async sessions(): Promise<SessionBody[]> {
    const sessions: SessionBody[] = [];
    for (;;) {
      const after = sessions.at(-1)?.id;
      const page = await this.json<{ sessions: SessionBody[]; more: boolean }>("GET", `/v1/sessions${query({ after, limit: 200 })}`);
      sessions.push(...page.sessions);
      if (!page.more || sessions.length >= 2000) return sessions;
    }
  }

  session(id: string): Promise<SessionBody> {
    return this.json("GET", path(id));
  }

  open(id: string): Promise<SessionBody> {
    return this.json("PUT", path(id));
  }

  /** Gives a session a title, or takes it away. */
  rename(id: string, title: string): Promise<SessionBody> {
    return this.json("PATCH", path(id), { labels: { title: title.trim() === "" ? null : title.trim() } });
  }

  usage(id: string): Promise<SessionUsage> {
    return this.json("GET", `${path(id)}/usage`);
  }

  async end(id: string): Promise<void> {
    await this.fetch(path(id), { method: "DELETE" });
  }

  output(id: string, cell: string, stream: StreamName, from: number, bytes: number): Promise<OutputPart> {
    return this.json("GET", `${path(id)}/cells/${cell}/output${query({ stream, from, bytes })}`);
  }

  find(id: string, cell: string, stream: StreamName, find: string, from: number): Promise<OutputMatches> {
    return this.json("GET", `${path(id)}/cells/${cell}/output${query({ stream, from, find, limit: 100 })}`);
  }

  /** One event of the log, whole. */
  event(id: string, seq: number): Promise<Event> {
    return this.json("GET", `${path(id)}/events/${seq}`);
  }

  async files(id: string, directory: string): Promise<FileEntry[]> {
    const entries: FileEntry[] = [];
    for (;;) {
      const after = entries.at(-1)?.name;
      const page = await this.json<{ entries: FileEntry[]; more: boolean }>("GET", `${path(id)}/files${query({ path: directory, after })}`);
      entries.push(...page.entries);
      if (!page.more || entries.length >= 5000) return entries;
    }
  }

  file(id: string, name: string, init?: RequestInit): Promise<Response> {
    return this.fetch(filePath(id, name), init);
  }

  /** Uploads with progress, which `fetch` does not tell. */
  upload(id: string, name: string, content: Blob, onProgress: (sent: number) => void, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", this.base + filePath(id, name));
      if (this.token !== "") request.setRequestHeader("Authorization", `Bearer ${this.token}`);
      request.upload.onprogress = (event) => onProgress(event.loaded);
      request.onerror = () => reject(new ApiError("unreachable", "the upload was cut off; nothing of it was kept", 0));
      request.onabort = () => reject(new DOMException("the upload was stopped", "AbortError"));
      request.onload = () => {
        if (request.status < 300) resolve();
        else reject(errorFrom(request.status, request.responseText));
      };
      signal?.addEventListener("abort", () => request.abort());
      request.send(content);
    });
  }
}

/** What to call a session: by its title, if somebody gave it one. */
export function titleOf(id: string, labels: Labels | undefined): string {
  return labels?.["title"] ?? id;
}

export function path(id: string): string {
  return `/v1/sessions/${encodeURIComponent(id)}`;
}

function filePath(id: string, name: string): string {
  return `${path(id)}/files/${name.split("/").map(encodeURIComponent).join("/")}`;
}

function query(values: Record<string, string | number | undefined>): string {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return pairs.length === 0 ? "" : `?${pairs.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&")}`;
}

async function errorOf(response: Response): Promise<ApiError> {
  return errorFrom(response.status, await response.text().catch(() => ""));
}

function errorFrom(status: number, text: string): ApiError {
  try {
    const { code, message, ...facts } = (JSON.parse(text) as { error: { code: string; message: string } }).error;
    return new ApiError(code, message ?? `the server refused (${code})`, status, facts);
  } catch {
    return new ApiError("bad_answer", `the server answered ${status}, and not in its own words`, status);
  }
}
