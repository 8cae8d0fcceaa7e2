// The outputs of a cell, each in the richest form that can be drawn: text and pictures in the page, everything else in a frame.

import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useEffect, useMemo, useState } from "preact/hooks";
import { bytes } from "../format.ts";
import { plain } from "../output/ansi.ts";
import { jsonMarkup } from "../output/json.ts";
import { bytesOf, formOf, type Form } from "../output/mime.ts";
import { outputOf, type BundleOutput, type ErrorText, type FarOutput, type Output } from "../reduce.ts";
import { save } from "../save.ts";
import type { Session } from "../session.ts";
import type { Event } from "../wire.ts";
import { Frame, type Drawing } from "./frame.tsx";
import { Button } from "./icons.tsx";
import { LongText, Stream } from "./text.tsx";
import { Widgets } from "./widgets.tsx";

interface OutputsProps {
  session: Session;
  cell: string | null;
  outputs: readonly Output[];
  isRunning: boolean;
}

export const Outputs = memo(function Outputs({ session, cell, outputs, isRunning }: OutputsProps): JSX.Element | null {
  if (outputs.length === 0) return null;
  return (
    <div class="outputs" role="group" aria-label="Output">
      {outputs.map((output) => {
        switch (output.kind) {
          case "stream":
            return <Stream key={output.key} session={session} cell={cell} output={output} isRunning={isRunning} />;
          case "bundle":
            return <Bundle key={output.key} session={session} output={output} />;
          case "error":
            return <Failure key={output.key} error={output} />;
          case "far":
            return <Far key={output.key} session={session} cell={cell} output={output} />;
          case "many":
            return <p key={output.key} class="quiet-note">{output.count} outputs in between are in the session's log, and not shown here.</p>;
        }
      })}
    </div>
  );
});

/** A title is read at a glance; a longer one is whole in the traceback. */
const LONGEST_TITLE = 500;

function firstLine(text: string): string {
  return plain(text.slice(0, text.indexOf("\n") >= 0 ? text.indexOf("\n") : text.length));
}

const Failure = memo(function Failure({ error }: { error: ErrorText }): JSX.Element {
  const title = useMemo(() => (error.evalue === "" ? error.ename : `${error.ename}: ${firstLine(error.evalue)}`), [error]);
  const lines = useMemo(() => tracebackLines(error, title), [error, title]);
  const text = lines.join("\n");
  const [isWhole, setWhole] = useState(false);
  const isLong = lines.length > 40;
  const shown = isLong && !isWhole ? [...lines.slice(0, 8), "", ...lines.slice(-24)].join("\n") : text;
  return (
    <div class="failure">
      <p class="failure-title">{title.length > LONGEST_TITLE ? `${title.slice(0, LONGEST_TITLE)}…` : title}</p>
      {text !== "" && <pre class="text traceback" tabIndex={0} role="region" aria-label="Traceback"><LongText text={shown} name="traceback.txt" /></pre>}
      {isLong && <button type="button" class="link" onClick={() => setWhole(!isWhole)}>{isWhole ? "Show less" : `Show all ${lines.length} lines`}</button>}
    </div>
  );
});

/** A traceback without the lines that say again what its title says. */
function tracebackLines(error: ErrorText, title: string): string[] {
  const lines = error.traceback.join("\n").split("\n");
  if (/^-+$/.test(plain(lines[0] ?? ""))) lines.shift();
  if (/^\S+ +Traceback \(most recent call last\)$/.test(plain(lines[0] ?? ""))) lines.shift();
  while (lines.length > 0 && plain(lines.at(-1) ?? "").trim() === "") lines.pop();
  if (title.length <= LONGEST_TITLE && plain(lines.at(-1) ?? "") === title) lines.pop();
  while (lines.length > 0 && plain(lines.at(-1) ?? "").trim() === "") lines.pop();
  return lines;
}

const Bundle = memo(function Bundle({ session, output }: { session: Session; output: BundleOutput }): JSX.Element {
  const form = useMemo(() => formOf(output.data), [output.data]);
  switch (form.kind) {
    case "text":
      return <pre class="text value" {...(form.text.length > 2000 ? { tabIndex: 0, role: "region", "aria-label": "Value" } : {})}><LongText text={form.text} name={`value-${output.seq}.txt`} /></pre>;
    case "image":
      return <Picture session={session} form={form} output={output} />;
    case "widget":
      return <Widgets session={session} id={form.model} text={form.text} />;
    case "unknown":
      return <p class="quiet-note">This cannot be shown here: {form.types.join(", ")}.</p>;
    default:
      // What scripts have left behind goes with their frame: each drawing of such an output has a frame of its own.
      return <Framed key={hasScripts(form) ? output.seq : 0} session={session} form={form} />;
  }
});

function hasScripts(form: Form): boolean {
  return form.kind === "script" || (form.kind === "html" && /<script/i.test(form.html));
}

/** An output that is read from the log when somebody wants to see it. */
function Far({ session, cell, output }: { session: Session; cell: string | null; output: FarOutput }): JSX.Element {
  const [read, setRead] = useState<Output | null>(null);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => setRead(null), [output.seq]);
  const fetched = async (use: (event: Event) => void): Promise<void> => {
    setBusy(true);
    try {
      use(await session.api.event(session.id, output.seq));
    } catch (error) {
      session.complain(error);
    } finally {
      setBusy(false);
    }
  };
  if (read !== null) return <Outputs session={session} cell={cell} outputs={[read]} isRunning={false} />;
  return (
    <p class="gap">
      <span>An output of {bytes(output.weight)} is not held here</span>
      <button type="button" class="link" disabled={isBusy} onClick={() => void fetched((event) => setRead(outputOf(event, output.key)))}>{isBusy ? "Reading…" : "Show"}</button>
      <button type="button" class="link" disabled={isBusy} onClick={() => void fetched((event) => save(new Blob([JSON.stringify(event)], { type: "application/json" }), `output-${output.seq}.json`))}>Save</button>
    </p>
  );
}

const TITLES: Record<string, string> = {
  html: "Output", script: "Output of a script", plotly: "Interactive figure", vega: "Interactive figure", markdown: "Text", latex: "Formula", json: "JSON",
};

/** What has to be drawn in a frame; some of it is first made into markup by a library that is loaded when it is needed. */
function Framed({ session, form }: { session: Session; form: Exclude<Form, { kind: "text" | "image" | "widget" | "unknown" }> }): JSX.Element {
  // One object for one output: whatever is handed to a frame anew is drawn anew, and its scripts run again.
  const now = useMemo(() => drawingNow(form), [form]);
  const [later, setLater] = useState<Drawing | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    if (now !== null) return;
    let isGone = false;
    drawingLater(form).then(
      (made) => { if (!isGone) setLater(made); },
      (error: unknown) => { if (!isGone) setProblem(error instanceof Error ? error.message : String(error)); },
    );
    return () => { isGone = true; };
  }, [form, now]);
  const drawing = now ?? later;
  if (problem !== null) return <p class="quiet-note">This cannot be drawn: {problem}.</p>;
  return drawing === null ? <p class="quiet-note">Drawing…</p> : <Frame session={session} drawing={drawing} title={TITLES[form.kind] ?? "Output"} />;
}

function drawingNow(form: Form): Drawing | null {
  switch (form.kind) {
    case "html": return { type: "html", html: form.html };
    case "script": return { type: "script", code: form.code };
    case "json": return { type: "html", html: jsonMarkup(form.value) };
    default: return null;
  }
}

async function drawingLater(form: Form): Promise<Drawing> {
  switch (form.kind) {
    case "markdown": return { type: "html", html: (await import("../output/rich.ts")).markdownMarkup(form.text) };
    case "latex": return { type: "html", html: (await import("../output/rich.ts")).latexMarkup(form.text) };
    case "plotly": return { type: "plotly", library: await library("plotly"), data: form.data };
    case "vega": return { type: "vega", library: await library("vega"), data: form.data, isLite: form.isLite };
    default: throw new Error(`nothing draws ${form.kind}`);
  }
}

const libraries = new Map<string, Promise<string>>();

/** The text of a library that runs in the frame: it cannot load it, so it is given it. */
function library(name: "plotly" | "vega"): Promise<string> {
  let text = libraries.get(name);
  if (text === undefined) {
    text = fetch(`/libraries/${name}.js`, { credentials: "omit" }).then((response) => {
      if (!response.ok) throw new Error(`${name} is not installed beside this server`);
      return response.text();
    });
    libraries.set(name, text);
    text.catch(() => libraries.delete(name));
  }
  return text;
}

function Picture({ session, form, output }: { session: Session; form: Extract<Form, { kind: "image" }>; output: BundleOutput }): JSX.Element {
  const [address, setAddress] = useState<string | null>(null);
  const blob = useMemo(() => {
    const content = bytesOf(form.base64);
    return content === null ? null : new Blob([content], { type: form.type });
  }, [form]);
  useEffect(() => {
    if (blob === null) return;
    const made = URL.createObjectURL(blob);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  if (blob === null) return <p class="quiet-note">This is no picture, though it says so.</p>;
  const size = sizeOf(output.metadata, form.type);
  const label = altOf(output);
  const name = `figure-${output.seq}.${form.type.slice("image/".length)}`;
  return (
    <figure class="picture">
      {address !== null && <img src={address} alt={label} {...size} onDblClick={() => session.showPicture(address, label)} />}
      <div class="picture-tools">
        <Button icon="expand" label="Open figure" onClick={() => { if (address !== null) session.showPicture(address, label); }} />
        {form.type === "image/png" && (
          <Button icon="copy" label="Copy figure" onClick={() => {
            // A page that came without TLS from another host has no clipboard.
            if (!window.isSecureContext) return session.complain(new Error("a browser copies pictures only from pages that came by HTTPS; save the figure instead"));
            navigator.clipboard.write([new ClipboardItem({ [blob.type]: blob })]).then(() => session.toast("Figure copied"), (error: unknown) => session.complain(error));
          }} />
        )}
        <Button icon="download" label="Save figure" onClick={() => save(blob, name)} />
      </div>
    </figure>
  );
}

function altOf(output: BundleOutput): string {
  const text = output.data["text/plain"];
  return typeof text === "string" && text.length < 200 ? text.replace(/^<|>$/g, "") : "Figure";
}

function sizeOf(metadata: Readonly<Record<string, unknown>>, type: string): { width?: number; height?: number } {
  const own = metadata[type] ?? metadata;
  const size: { width?: number; height?: number } = {};
  if (typeof own === "object" && own !== null) {
    if ("width" in own && typeof own.width === "number" && own.width > 0 && own.width < 10_000) size.width = own.width;
    if ("height" in own && typeof own.height === "number" && own.height > 0 && own.height < 10_000) size.height = own.height;
  }
  return size;
}
