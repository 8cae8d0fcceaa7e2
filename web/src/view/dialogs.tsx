// What lies over the page: a figure, a long output, a question, the keys.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, plural } from "../format.ts";
import type { Dialog, Session } from "../session.ts";
import type { OutputMatches, OutputPart, StreamName } from "../wire.ts";
import { Button } from "./icons.tsx";
import { KEYS } from "./keys.ts";
import { AnsiText } from "./text.tsx";

export function DialogView({ session, dialog }: { session: Session; dialog: Dialog }): JSX.Element {
  const close = (): void => session.show(null);
  switch (dialog.kind) {
    case "picture":
      return (
        <Modal title={dialog.label} class="wide" onClose={close}>
          <img class="picture-large" src={dialog.address} alt={dialog.label} />
        </Modal>
      );
    case "output":
      return <LongOutput session={session} cell={dialog.cell} stream={dialog.stream} onClose={close} />;
    case "link":
      return <FollowLink url={dialog.url} onClose={close} />;
    case "confirm":
      return <Confirm {...dialog} onYes={() => { close(); dialog.run(); }} onClose={close} />;
    case "rename":
      return <Rename id={session.id} title={session.title} onRename={(title) => { close(); void session.rename(title); }} onClose={close} />;
    case "help":
      return (
        <Modal title="Keys" class="wide" onClose={close}>
          <div class="keys">
            {KEYS.map((group) => (
              <section key={group.title}>
                <h3>{group.title}</h3>
                <dl>{group.keys.map(([key, text]) => <div key={key}><dt>{key}</dt><dd>{text}</dd></div>)}</dl>
              </section>
            ))}
          </div>
        </Modal>
      );
  }
}

interface ConfirmProps {
  title: string;
  text: string;
  yes: string;
  isDangerous?: boolean;
  onYes: () => void;
  onClose: () => void;
}

/** Asks before something is done. The keyboard is on yes, unless there is no way back from it. */
export function Confirm({ title, text, yes, isDangerous = false, onYes, onClose }: ConfirmProps): JSX.Element {
  return (
    <Modal title={title} onClose={onClose}>
      <p>{text}</p>
      <div class="dialog-tools">
        <button type="button" class={`button ${isDangerous ? "danger" : "strong"}`} autofocus={!isDangerous} onClick={onYes}>{yes}</button>
        <button type="button" class="button" autofocus={isDangerous} onClick={onClose}>Cancel</button>
      </div>
    </Modal>
  );
}

/** How long a question stands before it can be answered with yes: a click that was meant for what lay beneath is no answer. */
const LOOK_FIRST = 700;

/** Asks whether a link of an output is to be opened. */
function FollowLink({ url, onClose }: { url: string; onClose: () => void }): JSX.Element {
  const [isReady, setReady] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setReady(true), LOOK_FIRST);
    return () => clearTimeout(timer);
  }, []);
  return (
    <Modal title="Open this address?" onClose={onClose}>
      <p>An output links to it. Look at it before you open it: an address can carry data to wherever it leads.</p>
      <p class="address">{url}</p>
      <div class="dialog-tools">
        <a class="button strong" {...(isReady ? { href: url } : { "aria-disabled": "true" as const })} target="_blank" rel="noopener noreferrer" onClick={() => { if (isReady) onClose(); }}>Open in a new tab</a>
        <button type="button" class="button" autofocus onClick={onClose}>Leave it</button>
      </div>
    </Modal>
  );
}

/** Asks what a session is to be called. Its id stays as it is: programs know it by that. */
export function Rename({ id, title, onRename, onClose }: { id: string; title: string; onRename: (title: string) => void; onClose: () => void }): JSX.Element {
  const [text, setText] = useState(title);
  return (
    <Modal title="Rename this session" onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); onRename(text.trim() === id ? "" : text); }}>
        <p><label for="title">Title; without one it is called {id}</label></p>
        <p><input id="title" value={text} maxLength={200} autofocus autocomplete="off" onInput={(event) => setText(event.currentTarget.value)} /></p>
        <div class="dialog-tools">
          <button type="submit" class="button strong">Rename</button>
          <button type="button" class="button" onClick={onClose}>Cancel</button>
        </div>
      </form>
    </Modal>
  );
}

export function Modal({ title, children, onClose, class: extra }: { title: string; children: ComponentChildren; onClose: () => void; class?: string }): JSX.Element {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    // An output does not get the keyboard back: whoever goes on in it clicks into it.
    return () => { if (before instanceof HTMLElement && !(before instanceof HTMLIFrameElement)) before.focus({ preventScroll: true }); };
  }, []);
  return (
    <dialog ref={element} class={`dialog ${extra ?? ""}`} aria-label={title} onClose={onClose} onCancel={onClose}
      onClick={(event) => { if (event.target === element.current) onClose(); }}>
      <div class="dialog-inside">
        <header><h2>{title}</h2><Button icon="close" label="Close" onClick={onClose} /></header>
        {children}
      </div>
    </dialog>
  );
}

const PART = 256 * 1024;

/** A cell's whole output of one stream: read part by part, and searched by the server. */
function LongOutput({ session, cell, stream, onClose }: { session: Session; cell: string; stream: StreamName; onClose: () => void }): JSX.Element {
  const [part, setPart] = useState<OutputPart | null>(null);
  const [wanted, setWanted] = useState("");
  const [found, setFound] = useState<OutputMatches | null>(null);
  const [problem, setProblem] = useState("");
  const text = useRef<HTMLPreElement>(null);
  const load = async (from: number): Promise<void> => {
    try {
      setPart(await session.api.output(session.id, cell, stream, Math.max(0, from), PART));
      setProblem("");
      if (text.current !== null) text.current.scrollTop = 0;
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  useEffect(() => void load(0), [cell, stream]);
  /** Finds the first matches, or more of them behind those that are there. */
  const search = async (before: OutputMatches | null = null): Promise<void> => {
    if (wanted === "") return setFound(null);
    try {
      const more = await session.api.find(session.id, cell, stream, wanted, before?.next ?? 0);
      setFound(before === null ? more : { ...more, total: before.total, matches: [...before.matches, ...more.matches] });
      setProblem("");
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  const end = part === null ? 0 : part.next;
  return (
    <Modal title={stream === "stdout" ? "Printed text" : "Standard error"} class="wide long-output" onClose={onClose}>
      <form class="search" onSubmit={(event) => { event.preventDefault(); void search(); }}>
        <label class="visually-hidden" for="find">Find in the whole output</label>
        <input id="find" placeholder="Find in the whole output" value={wanted} onInput={(event) => { setWanted(event.currentTarget.value); setFound(null); }} />
        <button type="submit" class="button">Find</button>
      </form>
      {problem !== "" && <p class="told warn" role="alert">{problem}</p>}
      {found !== null && (
        <div class="matches">
          <p class="quiet-note">{found.total === 0 ? "Not found." : `${plural(found.total, "match", "matches")}${found.total > found.matches.length ? `; the first ${found.matches.length} ` : ""}`}
            {found.total > found.matches.length && found.matches.length > 0 && <button type="button" class="link" onClick={() => void search(found)}>Show more</button>}
          </p>
          <ol>
            {found.matches.map((match) => (
              <li key={match.byte}><button type="button" onClick={() => void load(match.byte - 400)}><span class="line-number">{match.line}</span>{match.text}</button></li>
            ))}
          </ol>
        </div>
      )}
      <pre ref={text} class="text whole" tabIndex={0} role="region" aria-label="The text">{part === null ? "Reading…" : <AnsiText text={part.text} />}</pre>
      {part !== null && (
        <div class="dialog-tools">
          <span class="quiet-note">{bytes(part.from)} to {bytes(end)} of {bytes(part.total_bytes)}</span>
          <button type="button" class="button" disabled={part.from === 0} onClick={() => void load(part.from - PART)}>Before</button>
          <button type="button" class="button" disabled={end >= part.total_bytes} onClick={() => void load(end)}>After</button>
          <button type="button" class="button" disabled={end >= part.total_bytes} onClick={() => void load(part.total_bytes - PART)}>End</button>
        </div>
      )}
    </Modal>
  );
}
