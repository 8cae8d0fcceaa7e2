// The menu of a session: notebooks in and out, and the rarer commands.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { fromIpynb, toIpynb, toPage, toScript, type WholeCell } from "../export.ts";
import { plural } from "../format.ts";
import { save } from "../save.ts";
import type { Session } from "../session.ts";
import { wholeCells } from "../whole.ts";

export function MoreMenu({ session }: { session: Session }): JSX.Element {
  const [isOpen, setOpen] = useState(false);
  const element = useRef<HTMLDivElement>(null);
  const file = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (!isOpen) return;
    element.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const away = (event: Event): void => {
      if (element.current !== null && event.target instanceof Node && !element.current.contains(event.target)) setOpen(false);
    };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, [isOpen]);
  const keys = (event: KeyboardEvent): void => {
    const items = [...(element.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const index = items.indexOf(document.activeElement as HTMLElement);
    if (event.key === "Escape") {
      setOpen(false);
      element.current?.querySelector("button")?.focus();
    } else if (event.key === "ArrowDown") items[(index + 1) % items.length]?.focus();
    else if (event.key === "ArrowUp") items[(index - 1 + items.length) % items.length]?.focus();
    else if (event.key === "Tab") return setOpen(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const item = (label: string, run: () => void): JSX.Element => (
    <button type="button" role="menuitem" tabIndex={-1} onClick={() => { setOpen(false); run(); }}>{label}</button>
  );
  const python = session.view.notebook.python;
  const name = session.id.replace(/[^\w.-]/g, "-");
  return (
    <div class="menu" ref={element} onKeyDown={isOpen ? keys : undefined}>
      <button type="button" class="button" aria-label="More" title="More" aria-haspopup="menu" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2.6" stroke-linecap="round"><path d="M3.5 8h.01M8 8h.01M12.5 8h.01" /></svg>
      </button>
      {isOpen && (
        <div class="menu-list" role="menu" aria-label="More">
          {item("Import a notebook (.ipynb)…", () => file.current?.click())}
          {item("Save as notebook (.ipynb)", () => void saveAs(session, `${name}.ipynb`, (cells) => new Blob([toIpynb(cells, python)], { type: "application/x-ipynb+json" })))}
          {item("Save as script (.py)", () => save(new Blob([toScript(session.view.cells)], { type: "text/x-python" }), `${name}.py`))}
          {item("Save as page (.html)", () => void saveAs(session, `${name}.html`, (cells) => page(session, cells)))}
          <hr />
          {item("Rename this session…", () => session.show({ kind: "rename" }))}
          {item("Undo deletion", () => session.undoRemove())}
          {"Notification" in window && Notification.permission === "default" && item("Tell me of deadlines when this tab is hidden", () => void Notification.requestPermission())}
          {item("End this session…", () => session.confirmEnd())}
        </div>
      )}
      <input ref={file} type="file" accept=".ipynb,application/x-ipynb+json,application/json" hidden aria-label="Notebook to import"
        onChange={(event) => {
          const chosen = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (chosen !== undefined) void importNotebook(session, chosen);
        }} />
    </div>
  );
}

const LARGEST = 100_000_000;

async function importNotebook(session: Session, file: File): Promise<void> {
  if (file.size > LARGEST) return session.complain(new Error(`\`${file.name}\` is larger than 100 MB; import it without its outputs`));
  const cells = fromIpynb(await file.text());
  if (typeof cells === "string") return session.complain(new Error(`\`${file.name}\` cannot be imported: ${cells}`));
  try {
    const left = await session.import(cells);
    session.toast(`${plural(cells.length, "cell")} imported at the end${left > 0 ? `; the outputs of ${left} of them are too large, and were left out` : ""}`);
  } catch (error) {
    session.complain(error);
  }
}

/** Saves the session as a file, with what the page does not hold. */
async function saveAs(session: Session, name: string, make: (cells: readonly WholeCell[]) => Blob | Promise<Blob>): Promise<void> {
  try {
    save(await make(await wholeCells(session)), name);
  } catch (error) {
    session.complain(error);
  }
}

async function page(session: Session, cells: readonly WholeCell[]): Promise<Blob> {
  return new Blob([toPage(session.title, cells, await import("../output/rich.ts"))], { type: "text/html" });
}
