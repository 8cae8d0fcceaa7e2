// One cell: its editor or its text, what it does at the moment, what it has shown, and what became of it.

import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { EditorView } from "@codemirror/view";
import { authorOf, type ShownCell } from "../cells.ts";
import { duration, memory, plural } from "../format.ts";
import type { Imported } from "../imported.ts";
import type { Execution } from "../reduce.ts";
import type { Mode, Session } from "../session.ts";
import { toldOfNote, toldOfNotice, toldOfRun, type Told } from "../verdict.ts";
import { enter, makeEditor, setLineNumbers, setText } from "./editor.ts";
import { Button } from "./icons.tsx";
import { Markdown } from "./markdown.tsx";
import { Outputs } from "./outputs.tsx";
import { Running } from "./running.tsx";

interface CellProps {
  session: Session;
  cell: ShownCell;
  index: number;
  isSelected: boolean;
  /** Only of the selected cell. */
  mode: Mode | null;
  isOpened: boolean;
  isLast: boolean;
  /** Whether it is one of several that are selected. */
  isChosen: boolean;
  isFolded: boolean;
  hasLineNumbers: boolean;
  /** What came with it when it was imported. */
  imported: Imported | undefined;
}

export const Cell = memo(function Cell({ session, cell, index, isSelected, mode, isOpened, isLast, isChosen, isFolded, hasLineNumbers, imported }: CellProps): JSX.Element {
  const element = useRef<HTMLElement>(null);
  const { run, waiting } = cell;
  const isRunning = run?.status === "running";
  useLayoutEffect(() => {
    if (!isSelected || mode !== "command") return;
    const node = element.current;
    if (node === null) return;
    // A field of the cell keeps the keyboard; otherwise the cell itself has it, so that keys and screen readers are where the eye is.
    if (!node.contains(document.activeElement)) node.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
  }, [isSelected, mode]);
  const isText = cell.kind === "markdown";
  const state = waiting !== null || cell.isUnsent ? "queued" : isRunning ? "running" : (run?.status ?? "new");
  const isShownAsText = isText && !isOpened && cell.source.trim() !== "";
  const label = `${isText ? "Text" : "Code"} cell ${index + 1}`;
  return (
    <article ref={element} id={`cell-${cell.id}`} class={`cell is-${state} ${run?.isUndone === true ? "is-undone" : ""} ${cell.kind} ${isSelected ? "selected" : ""} ${isChosen ? "chosen" : ""} ${mode ?? ""}`} tabIndex={isSelected ? 0 : -1}
      aria-label={label} aria-current={isSelected ? "true" : undefined}
      onMouseDown={(event) => {
        // The path, not the ancestors: what was clicked may be gone already, as a completion that was chosen.
        const isOwn = event.composedPath().some((node) => node instanceof Element && node.matches(".cm-editor, button, a, input, .text"));
        if (event.shiftKey && !isOwn) {
          event.preventDefault();
          session.chooseTo(cell.id);
        } else if (!isOwn) session.select(cell.id);
      }}
      onFocusIn={(event) => {
        if ((event.target as Element).closest(".cm-editor") !== null) session.select(cell.id, "edit");
        else if (!isSelected) session.select(cell.id);
      }}>
      <div class="gutter">
        {isText ? <span class="count" aria-hidden="true" /> : <Count cell={cell} />}
        {!isText && (
          <Button class="run" icon={isRunning ? "stop" : "play"} label={isRunning ? "Interrupt this cell" : "Run this cell"} keys={isRunning ? "I, I" : "Ctrl+Enter"}
            onClick={() => { session.select(cell.id); if (isRunning) session.interrupt(); else session.run(cell.id); }} />
        )}
      </div>
      <div class="body">
        <Tools session={session} cell={cell} index={index} isLast={isLast} isOpened={isOpened} />
        {isShownAsText ? (
          <div class="rendered" onDblClick={() => { session.setOpened(cell.id, true); session.select(cell.id, "edit"); }}>
            <Markdown text={cell.source} attachments={imported?.attachments} />
          </div>
        ) : (
          <Source session={session} cell={cell} label={label} isEditing={isSelected && mode === "edit"} hasLineNumbers={hasLineNumbers} />
        )}
        {cell.others.map((other) => (
          <aside key={`${other.by}-${other.n}`} class="told warn other" role="note">
            <p><strong>This cell was edited elsewhere at the same time.</strong> The later text is above; this is the other one:</p>
            <pre class="text" tabIndex={0}>{other.text}</pre>
            <p class="told-tools">
              <button type="button" class="button" onClick={() => { session.edit(cell.id, other.text); session.dismissOther(cell.id, other); }}>Use this one</button>
              <button type="button" class="button" onClick={() => { session.insert(index + 1, cell.kind, other.text, "command"); session.dismissOther(cell.id, other); }}>Keep as a cell</button>
              <button type="button" class="button" onClick={() => session.dismissOther(cell.id, other)}>Dismiss</button>
            </p>
          </aside>
        ))}
        {run !== null && isRunning && <Running session={session} run={run} />}
        {waiting !== null && (
          <p class="quiet-note waiting-note">
            <span>{cell.position === 1 ? "Next to run" : `Waiting: ${plural(cell.position - 1, "cell")} before it`}</span>
            <button type="button" class="link" onClick={() => session.cancel(waiting.cell)}>Take out of the queue</button>
          </p>
        )}
        {cell.isUnsent && (
          <p class="quiet-note waiting-note">
            <span>Will be sent as soon as the server takes it</span>
            <button type="button" class="link" onClick={() => session.unsend(cell.id)}>Do not run it</button>
          </p>
        )}
        {run !== null && !isText && (
          <div class={waiting !== null ? "stale" : ""}>
            {run.note !== null && <p class="quiet-note">{toldOfNote(run.note, (id) => session.nameOf(id))}</p>}
            {isFolded && run.outputs.length > 0
              ? <p class="quiet-note">Output folded away. <button type="button" class="link" onClick={() => session.fold([cell])}>Show it</button></p>
              : <Outputs key={run.cell} session={session} cell={run.cell} outputs={run.outputs} isRunning={isRunning} />}
            <Verdict told={toldOfRun(run, (id) => session.nameOf(id))} />
            <Facts run={run} source={cell.source} />
          </div>
        )}
        {run === null && waiting === null && !isText && imported !== undefined && imported.outputs.length > 0 && (
          <>
            <p class="quiet-note">As it was imported{imported.count === null ? "" : `, as cell [${imported.count}]`}; it has not run here.</p>
            {isFolded ? <p class="quiet-note"><button type="button" class="link" onClick={() => session.fold([cell])}>Show the output</button></p> : <Outputs session={session} cell={null} outputs={imported.outputs} isRunning={false} />}
          </>
        )}
        {cell.notices.map((notice) => (
          // What the cell itself says of its end is not said twice.
          notice.cause !== null && run?.finished?.cause?.kind === notice.cause.kind ? null : <Verdict key={notice.seq} told={toldOfNotice(notice, (id) => session.nameOf(id))} />
        ))}
      </div>
    </article>
  );
});

function Count({ cell: { run, waiting, isUnsent } }: { cell: ShownCell }): JSX.Element {
  const text = waiting !== null || isUnsent ? "[…]" : run?.status === "running" ? "[*]" : run?.count !== null && run?.count !== undefined ? `[${run.count}]` : "[ ]";
  const spoken = waiting !== null || isUnsent ? "waiting" : run === null ? "not run" : run.status === "running" ? "running" : `run ${run.count ?? ""}, ${run.status}`;
  return <span class="count"><span aria-hidden="true">{text}</span><span class="visually-hidden">{spoken}</span></span>;
}

export function Verdict({ told }: { told: Told | null }): JSX.Element | null {
  if (told === null) return null;
  return <p class={`told ${told.tone}`} role="note"><strong>{told.title}</strong> {told.detail}</p>;
}

/** What a run took, quietly, and whether what is shown is of another source than stands here. */
function Facts({ run, source }: { run: Execution; source: string }): JSX.Element | null {
  const author = authorOf(run);
  const facts: string[] = [];
  const usage = run.finished?.usage;
  if (usage !== null && usage !== undefined) {
    facts.push(duration(usage.wall_ms));
    if (usage.cpu_ms > 1000 && usage.cpu_ms > usage.wall_ms * 1.2) facts.push(`${duration(usage.cpu_ms)} of processors`);
    if (usage.peak_memory_bytes !== undefined && usage.wall_ms > 500) facts.push(`up to ${memory(usage.peak_memory_bytes)}`);
  }
  if (author !== null) facts.push(`run by ${author}`);
  // A cell that went wrong itself says so in its verdict.
  if (run.isUndone && run.finished?.state.verdict === "kept") facts.push("undone: the variables are as they were before it");
  const isOther = run.finished !== null && run.code !== source;
  if (facts.length === 0 && !isOther) return null;
  return (
    <p class="facts">
      {isOther && <span class="edited">edited since it ran</span>}
      {facts.map((fact) => <span key={fact}>{fact}</span>)}
    </p>
  );
}

function Tools({ session, cell, index, isLast, isOpened }: { session: Session; cell: ShownCell; index: number; isLast: boolean; isOpened: boolean }): JSX.Element {
  const isText = cell.kind === "markdown";
  return (
    <div class="cell-tools" role="toolbar" aria-label="This cell">
      {isText && <button type="button" class="button small" onClick={() => { if (isOpened) session.setOpened(cell.id, false); else { session.setOpened(cell.id, true); session.select(cell.id, "edit"); } }}>{isOpened ? "Done" : "Edit"}</button>}
      <button type="button" class="button small" title={isText ? "Make it code (Y)" : "Make it text (M)"} onClick={() => session.setKind(cell.id, isText ? "code" : "markdown")}>{isText ? "Text" : "Code"}</button>
      <Button icon="up" label="Move up" keys="Ctrl+Shift+↑" isDisabled={index === 0} onClick={() => session.move(cell.id, -1)} />
      <Button icon="down" label="Move down" keys="Ctrl+Shift+↓" isDisabled={isLast} onClick={() => session.move(cell.id, 1)} />
      <Button icon="plus" label="Insert below" keys="B" onClick={() => session.insert(index + 1)} />
      <Button icon="trash" label="Delete" keys="D, D" onClick={() => session.remove(cell.id)} />
    </div>
  );
}

/** The editor. It is made when it comes near the screen, since a notebook may have hundreds; until then its text stands there. */
function Source({ session, cell, label, isEditing, hasLineNumbers }: { session: Session; cell: ShownCell; label: string; isEditing: boolean; hasLineNumbers: boolean }): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const [isNear, setNear] = useState(isEditing);
  useEffect(() => {
    if (isNear || place.current === null) return;
    const watcher = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) setNear(true); }, { rootMargin: "600px" });
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, [isNear]);
  const isMade = isNear || isEditing;
  useLayoutEffect(() => {
    if (!isMade || place.current === null) return;
    const made = makeEditor(place.current, { session, id: cell.id, kind: cell.kind, text: cell.source, label });
    view.current = made;
    return () => {
      view.current = null;
      made.destroy();
    };
  }, [isMade, session, cell.id, cell.kind]);
  useLayoutEffect(() => {
    if (view.current !== null) setText(view.current, cell.source);
  }, [cell.source]);
  useLayoutEffect(() => {
    if (view.current !== null) setLineNumbers(view.current, hasLineNumbers);
  }, [hasLineNumbers]);
  useLayoutEffect(() => {
    if (isEditing && view.current !== null && (!view.current.hasFocus || session.entering !== null)) enter(session, view.current);
  }, [isEditing, isMade, cell.kind]);
  return (
    <div class="source" ref={place}>
      {!isMade && <pre class="source-text">{cell.source === "" ? " " : cell.source}</pre>}
    </div>
  );
}
