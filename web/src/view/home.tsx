// The list of sessions, and the form for the token.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, titleOf, type Api } from "../api.ts";
import { ago, memory } from "../format.ts";
import type { SessionBody } from "../wire.ts";
import { Button, Icon } from "./icons.tsx";
import { Confirm, Rename } from "./dialogs.tsx";

const STATUS = { starting: "Starting", idle: "Idle", busy: "Running", restarting: "Restarting", dead: "No kernel", ended: "Ended" } as const;

export function Home({ api, onUnauthorized }: { api: Api; onUnauthorized: (why: string) => void }): JSX.Element {
  const [sessions, setSessions] = useState<SessionBody[] | null>(null);
  const [problem, setProblem] = useState("");
  const [name, setName] = useState("");
  const [ending, setEnding] = useState<SessionBody | null>(null);
  const [renaming, setRenaming] = useState<SessionBody | null>(null);
  const [wanted, setWanted] = useState("");
  const read = async (): Promise<void> => {
    try {
      setSessions(await api.sessions());
      setProblem("");
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) onUnauthorized(error.message);
      else setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  useEffect(() => {
    document.title = "Sessions · Evercell";
    void read();
    const timer = setInterval(() => { if (!document.hidden) void read(); }, 3000);
    return () => clearInterval(timer);
  }, [api]);
  const make = async (): Promise<void> => {
    const id = name.trim() === "" ? freshName(sessions ?? []) : name.trim();
    if (!/^[A-Za-z0-9._:-]{1,128}$/.test(id)) return setProblem("A name has 1 to 128 letters, digits, dots, dashes, colons and underscores");
    try {
      await api.open(id);
      location.hash = `#/s/${encodeURIComponent(id)}`;
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  const now = api.now();
  const shown = [...(sessions ?? [])].filter((session) => `${session.id}\n${titleOf(session.id, session.settings.labels)}`.toLowerCase().includes(wanted.trim().toLowerCase())).sort((a, b) => b.active_at_ms - a.active_at_ms);
  return (
    <div class="home-page">
      <header class="home-top"><Brand /></header>
      <main>
        <h1>Sessions</h1>
        <form class="new-session" onSubmit={(event) => { event.preventDefault(); void make(); }}>
          <label class="visually-hidden" for="name">Name of the new session</label>
          <input id="name" placeholder="Name, or leave it empty" value={name} autocomplete="off" spellcheck={false} onInput={(event) => setName(event.currentTarget.value)} />
          <button type="submit" class="button strong"><Icon name="plus" /><span>New session</span></button>
        </form>
        {problem !== "" && <p class="told warn" role="alert">{problem}.</p>}
        {sessions !== null && sessions.length > 6 && (
          <p class="filter"><label class="visually-hidden" for="filter">Filter by name</label><input id="filter" placeholder="Filter" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} /></p>
        )}
        {sessions !== null && sessions.length === 0 && (
          <section class="first-run" aria-label="How to begin">
            <h2>Nothing here yet</h2>
            <p>A session is one conversation with Python: its variables, its files, and a log of everything that happened. Make one, or let a program make it; both see the same.</p>
          </section>
        )}
        <ul class="sessions">
          {shown.map((session) => (
            <li key={session.id} class={session.status}>
              <a href={`#/s/${encodeURIComponent(session.id)}`}>
                <span class="session-name">{titleOf(session.id, session.settings.labels)}</span>
                <span class={`pill ${session.status}`}>{STATUS[session.status]}</span>
                <span class="session-facts">
                  {titleOf(session.id, session.settings.labels) !== session.id && <span>{session.id}</span>}
                  <span>active {ago(now - session.active_at_ms)}</span>
                  <span>opened {ago(now - session.opened_at_ms)}</span>
                  <span>up to {memory(session.settings.limits.memory_bytes)} of memory</span>
                  {session.queued.length > 0 && <span>{session.queued.length} waiting</span>}
                </span>
              </a>
              {session.status !== "ended" && <Button icon="pencil" label={`Rename ${session.id}`} onClick={() => setRenaming(session)} />}
              <Button icon="trash" label={`End ${session.id}`} onClick={() => setEnding(session)} />
            </li>
          ))}
        </ul>
      </main>
      {renaming !== null && (
        <Rename id={renaming.id} title={titleOf(renaming.id, renaming.settings.labels)} onClose={() => setRenaming(null)} onRename={(title) => {
          const { id } = renaming;
          setRenaming(null);
          void api.rename(id, title).catch((error: unknown) => setProblem(error instanceof Error ? error.message : String(error))).then(read);
        }} />
      )}
      {ending !== null && (
        <Confirm title={`End ${ending.id}?`} text="Its kernel, its files and its log are removed. There is no way back." yes="End and remove" isDangerous onClose={() => setEnding(null)} onYes={() => {
          const { id } = ending;
          setEnding(null);
          void api.end(id).catch((error: unknown) => setProblem(error instanceof Error ? error.message : String(error))).then(read);
        }} />
      )}
    </div>
  );
}

export function Brand(): JSX.Element {
  return (
    <span class="brand">
      <svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" /><path d="M21.5 10.2A8 8 0 1 0 24 16" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" /><circle cx="16" cy="16" r="2.6" fill="#fff" /></svg>
      Evercell
    </span>
  );
}

function freshName(sessions: readonly SessionBody[]): string {
  const taken = new Set(sessions.map((session) => session.id));
  const day = new Date();
  const stem = `notebook-${day.getFullYear()}-${String(day.getMonth() + 1).padStart(2, "0")}-${String(day.getDate()).padStart(2, "0")}`;
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? stem : `${stem}-${number}`;
    if (!taken.has(name)) return name;
  }
}

export function Login({ why, onToken }: { why: string; onToken: (token: string) => void }): JSX.Element {
  const [token, setToken] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Evercell";
    field.current?.focus();
  }, []);
  return (
    <div class="home-page">
      <header class="home-top"><Brand /></header>
      <main class="login">
        <h1>Welcome</h1>
        <p>This server asks for its token. It printed it when it started, at the end of the line that begins with “evercell is ready”; opening the address of that line brings it along.</p>
        <form onSubmit={(event) => { event.preventDefault(); if (token.trim() !== "") onToken(token.trim()); }}>
          <label for="token">Token</label>
          <input id="token" ref={field} type="password" value={token} autocomplete="off" onInput={(event) => setToken(event.currentTarget.value)} />
          {why !== "" && <p class="told warn" role="alert">{why}.</p>}
          <button type="submit" class="button strong">Enter</button>
        </form>
        <p class="quiet-note">It is kept until this tab is closed, and goes into no address.</p>
      </main>
    </div>
  );
}
