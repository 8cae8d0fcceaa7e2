// The page of one session.

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Api } from "../api.ts";
import { clock, memory } from "../format.ts";
import { Session, type View } from "../session.ts";
import { toldOfNotice } from "../verdict.ts";
import { Cell, Verdict } from "./cell.tsx";
import { CheckpointsPanel } from "./checkpoints.tsx";
import { DialogView } from "./dialogs.tsx";
import { FilesPanel } from "./files.tsx";
import { useTick, useView } from "./hooks.ts";
import { Button, Icon, type IconName } from "./icons.tsx";
import { listenToKeys } from "./keys.ts";
import { Outputs } from "./outputs.tsx";
import { MoreMenu } from "./menu.tsx";
import { VariablesPanel } from "./variables.tsx";

const PANELS = { files: "Files", variables: "Variables", checkpoints: "Checkpoints" } as const;
type Panel = keyof typeof PANELS;

const PANEL_BUTTONS: readonly (readonly [Panel, IconName])[] = [["files", "files"], ["variables", "variables"], ["checkpoints", "bookmark"]];

export function SessionPage({ api, id, onLogin }: { api: Api; id: string; onLogin: () => void }): JSX.Element {
  const session = useMemo(() => new Session(api, id), [api, id]);
  useEffect(() => {
    session.open();
    const stop = listenToKeys(session);
    return () => {
      stop();
      session.close();
    };
  }, [session]);
  const view = useView(session);
  const [panel, setPanel] = useState<Panel | null>(null);
  useTitle(session, view);
  const { notebook, cells, selected, mode, opened } = view;
  const chosen = new Set(session.chosen());
  // Cells wait for the notebook's first reading, so that nothing jumps.
  const isReady = view.isCaughtUp && (view.saved.state !== "loading" || (view.link.state !== "live" && view.link.state !== "ended"));
  const early = notebook.notices.filter((notice) => notice.after === null && notice.kind !== "reopened");
  return (
    <div class={`page ${panel === null ? "" : "with-panel"}`}>
      <header class="top">
        <a class="home" href="#/" title="All sessions" aria-label="All sessions"><Icon name="back" /></a>
        <h1 title={id} onDblClick={() => session.show({ kind: "rename" })}>{session.title}</h1>
        <Status view={view} />
        <div class="top-tools" role="toolbar" aria-label="Session">
          <Button icon="runAll" label="Run all" onClick={() => session.runAll()} />
          <Button icon="stop" label="Interrupt" keys="I, I" isDisabled={notebook.running === null} onClick={() => session.interrupt()} />
          <Button icon="undo" label="Undo the last cell" isDisabled={notebook.status !== "idle" || notebook.queue.length > 0} onClick={() => session.confirmUndo()} />
          <Button icon="restart" label="Restart the kernel" keys="0, 0" onClick={() => session.confirmRestart()} />
          <span class="divider" />
          {PANEL_BUTTONS.map(([name, icon]) => (
            <Button key={name} icon={icon} label={PANELS[name]} isPressed={panel === name} onClick={() => setPanel(panel === name ? null : name)} />
          ))}
          <Button icon="keyboard" label="Keys" keys="?" onClick={() => session.show({ kind: "help" })} />
          <MoreMenu session={session} />
        </div>
      </header>
      <LinkBanner session={session} view={view} onLogin={onLogin} />
      <main class="notebook" aria-label="Notebook">
        {early.map((notice) => <Verdict key={notice.seq} told={toldOfNotice(notice, (run) => session.nameOf(run))} />)}
        {cells.map((cell, index) => (
          <Cell key={cell.id} session={session} cell={cell} index={index} isChosen={chosen.size > 1 && chosen.has(cell)} isFolded={view.folded.has(cell.id)} hasLineNumbers={view.hasLineNumbers} imported={view.imported.get(cell.id)} isLast={index === cells.length - 1} isSelected={cell.id === selected}
            mode={cell.id === selected ? mode : null} isOpened={opened.has(cell.id)} />
        ))}
        {isReady && cells.length === 0 && view.link.state === "ended" && <p class="quiet-note center">There are no cells in this notebook.</p>}
        {isReady && cells.length === 0 && view.link.state !== "refused" && view.link.state !== "ended" && <FirstRun session={session} view={view} />}
        {!isReady && cells.length === 0 && view.link.state !== "refused" && <p class="quiet-note center">Opening…</p>}
        {notebook.background.length > 0 && (
          <section class="background" aria-label="Written between cells">
            <h2>Written between cells</h2>
            <Outputs session={session} cell={null} outputs={notebook.background} isRunning={false} />
          </section>
        )}
        {cells.length > 0 && (
          <div class="adders">
            <Button icon="plus" label="Code" isNamed onClick={() => session.insert(cells.length)} />
            <Button icon="plus" label="Text" isNamed onClick={() => session.insert(cells.length, "markdown")} />
          </div>
        )}
      </main>
      {panel !== null && (
        <aside class="panel" aria-label={PANELS[panel]}>
          {panel === "files" && <FilesPanel session={session} view={view} onClose={() => setPanel(null)} />}
          {panel === "variables" && <VariablesPanel session={session} view={view} onClose={() => setPanel(null)} />}
          {panel === "checkpoints" && <CheckpointsPanel session={session} view={view} onClose={() => setPanel(null)} />}
        </aside>
      )}
      <Toasts session={session} view={view} />
      {view.dialog !== null && <DialogView session={session} dialog={view.dialog} />}
    </div>
  );
}

const STATUS = { starting: "Starting", idle: "Idle", busy: "Running", restarting: "Restarting", dead: "No kernel", ended: "Ended" } as const;

function Status({ view: { notebook, link, saved, body } }: { view: View }): JSX.Element {
  const isLive = link.state === "live" || link.state === "ended";
  const running = notebook.running === null ? undefined : notebook.executions.get(notebook.running);
  const text = running?.count !== null && running?.count !== undefined ? `Running [${running.count}]` : STATUS[notebook.status];
  const waiting = notebook.queue.length;
  const limit = body?.settings.limits.memory_bytes;
  const title = [notebook.python === null ? "" : `Python ${notebook.python}`, limit === undefined ? "" : `${memory(limit)} of memory`].filter((part) => part !== "").join(", ");
  return (
    <div class="status" role="status">
      <span class={`pill ${isLive ? notebook.status : "unknown"}`} title={title}>{isLive ? text : "Not connected"}</span>
      {waiting > 0 && <span class="waiting">{waiting} waiting</span>}
      {saved.state === "here" && <span class="saved here" title={saved.why}>Kept in this browser only</span>}
      {saved.state === "unkept" && <span class="saved here" role="alert" title={saved.why}>Not kept: do not close this page</span>}
      {saved.state === "saving" && <span class="saved">Saving…</span>}
    </div>
  );
}

/** Says truly how the connection stands, where it does not stand well. */
function LinkBanner({ session, view: { link }, onLogin }: { session: Session; view: View; onLogin: () => void }): JSX.Element | null {
  useTick(500, link.state === "waiting");
  const [isSlow, setSlow] = useState(false);
  useEffect(() => {
    if (link.state !== "connecting") return setSlow(false);
    const timer = setTimeout(() => setSlow(true), 1500);
    return () => clearTimeout(timer);
  }, [link.state]);
  switch (link.state) {
    case "live": return null;
    case "connecting": return isSlow ? <p class="banner" role="status">Connecting…</p> : null;
    case "waiting":
      return (
        <p class="banner warn" role="status">
          <span><strong>Not connected:</strong> {link.why}. What runs goes on, and what you type is kept. Trying again in {clock(link.retryAt - Date.now() + 999)}.</span>
          <button type="button" class="button" onClick={() => session.retryNow()}>Try now</button>
        </p>
      );
    case "ended":
      return (
        <p class="banner" role="status">
          <span>This session has ended. Its log and files are kept; running a cell opens it again, with new variables.</span>
          <button type="button" class="button strong" onClick={() => void session.reopen()}>Open again</button>
        </p>
      );
    case "refused":
      return (
        <p class="banner bad" role="alert">
          <span>{link.code === "unknown_session" ? "There is no such session." : sentence(link.why)}</span>
          {link.code === "unknown_session" && <button type="button" class="button strong" onClick={() => void session.reopen()}>Make it</button>}
          {link.code === "unauthorized" && <button type="button" class="button strong" onClick={onLogin}>Give another token</button>}
        </p>
      );
  }
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}

const FIRST = 'import numpy as np\nimport matplotlib.pyplot as plt\n\nx = np.linspace(0, 10, 200)\nplt.plot(x, np.sin(x))\nplt.title("A first figure");';

/** What somebody sees who comes here for the first time: one screen that teaches. */
function FirstRun({ session, view }: { session: Session; view: View }): JSX.Element {
  const minutes = Math.round((view.body?.settings.timeouts.ceiling_ms ?? 600_000) / 60_000);
  return (
    <section class="first-run" aria-label="How to begin">
      <h2>A notebook that cannot lose anything</h2>
      <p>Write Python in a cell and press <kbd>Shift</kbd> <kbd>Enter</kbd>. Everything that happens is kept on the server as it happens: reload, close the lid, come back tomorrow.</p>
      <ul>
        <li><strong>Variables live on</strong> from cell to cell, and a cell that crashes costs that cell only.</li>
        <li><strong>A cell has a deadline</strong> that you can see. Press <kbd>E</kbd> to give it more time, up to {minutes} minutes.</li>
        <li><strong>Drop files</strong> on the Files panel, and they are beside your code.</li>
      </ul>
      <div class="first-run-tools">
        <button type="button" class="button strong" onClick={() => session.insert(0)}>Write a first cell</button>
        <button type="button" class="button" onClick={() => { const cell = session.insert(0, "code", FIRST, "command"); session.run(cell); }}>Show me a figure</button>
      </div>
    </section>
  );
}

function Toasts({ session, view }: { session: Session; view: View }): JSX.Element {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {view.toasts.map((toast) => (
        <div key={toast.id} class={`toast ${toast.isError ? "bad" : ""}`}>
          <span>{toast.text}</span>
          {toast.action !== null && <button type="button" class="link" onClick={() => { toast.action?.run(); session.dismissToast(toast.id); }}>{toast.action.label}</button>}
          <Button icon="close" label="Dismiss" onClick={() => session.dismissToast(toast.id)} />
        </div>
      ))}
    </div>
  );
}

/** The tab's title says what the session does, and a hidden tab calls when a deadline is near. */
function useTitle(session: Session, { notebook }: View): void {
  const run = notebook.running === null ? null : (notebook.executions.get(notebook.running) ?? null);
  const isWarned = run?.isWarned === true;
  const told = useRef<string | null>(null);
  useEffect(() => {
    const mark = isWarned ? "⏳ Stops soon · " : run?.input !== null && run?.input !== undefined ? "❓ " : run !== null ? "● " : "";
    document.title = `${mark}${session.title} · Evercell`;
    if (isWarned && run !== null && document.hidden && told.current !== `${run.cell}:${run.deadlineAt}` && "Notification" in window && Notification.permission === "granted") {
      // Each deadline is told of once, also that of a cell which was given more time before.
      told.current = `${run.cell}:${run.deadlineAt}`;
      const note = new Notification("A cell is stopped soon", { body: `${session.title}: come back to give it more time.`, tag: run.cell });
      note.onclick = () => window.focus();
    }
    return () => { document.title = "Evercell"; };
  });
}
