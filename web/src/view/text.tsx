// Text outputs: pieces of one look each, drawn as text; long ones as head and tail with what lies between on demand.

import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { pieces, type Look } from "../output/ansi.ts";
import { bytes } from "../format.ts";
import { save } from "../save.ts";
import type { Session } from "../session.ts";
import { utf8Length, type StreamOutput } from "../text.ts";

export const AnsiText = memo(function AnsiText({ text }: { text: string }): JSX.Element {
  const parts = useMemo(() => pieces(text), [text]);
  return (
    <>
      {parts.map((piece, index) =>
        piece.look === null ? piece.text : <span key={index} class={classOf(piece.look)} style={styleOf(piece.look)}>{piece.text}</span>,
      )}
    </>
  );
});

function classOf(look: Look): string {
  const classes: string[] = [];
  const { ink, paper } = look;
  if (typeof ink === "number") classes.push(`ink-${ink}`);
  if (typeof paper === "number") classes.push(`paper-${paper}`);
  if (look.isBold) classes.push("bold");
  if (look.isDim) classes.push("dim");
  if (look.isItalic) classes.push("italic");
  if (look.isUnderlined) classes.push("underlined");
  if (look.isStruck) classes.push("struck");
  if (look.isInverse) classes.push("inverse");
  return classes.join(" ");
}

function styleOf(look: Look): Record<string, string> {
  const style: Record<string, string> = {};
  if (typeof look.ink === "string") style["color"] = look.ink;
  if (typeof look.paper === "string") style["backgroundColor"] = look.paper;
  return style;
}

const PART = 64 * 1024;

/** What of a text is laid out at once. */
const LONGEST = 100 * 1024;
const END = 32 * 1024;

/** A text of any length that the page has whole: of a long one the beginning and the end, more of it on demand, and all of it as a file. */
export function LongText({ text, name }: { text: string; name: string }): JSX.Element {
  const [shown, setShown] = useState(LONGEST - END);
  if (text.length <= shown + END) return <AnsiText text={text} />;
  const left = text.length - shown - END;
  return (
    <>
      <AnsiText text={text.slice(0, shown)} />
      <span class="gap">
        <span>{bytes(left)} not shown here</span>
        <button type="button" class="link" onClick={() => setShown(shown + 4 * PART)}>{left <= 4 * PART ? "Show all" : "Show more"}</button>
        <button type="button" class="link" onClick={() => save(new Blob([text], { type: "text/plain" }), name)}>Save</button>
      </span>
      <AnsiText text={text.slice(-END)} />
    </>
  );
}

interface StreamProps {
  session: Session;
  cell: string | null;
  output: StreamOutput;
  isRunning: boolean;
}

/** A stream's text. While it is written the view stays at its end, unless somebody has scrolled away from there. */
export const Stream = memo(function Stream({ session, cell, output, isRunning }: StreamProps): JSX.Element {
  const box = useRef<HTMLPreElement>(null);
  const isAtEnd = useRef(true);
  const [isWhole, setWhole] = useState(false);
  const [isTall, setTall] = useState(false);
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    if (isAtEnd.current && isRunning) element.scrollTop = element.scrollHeight;
    setTall(element.scrollHeight > element.clientHeight + 4 || isWhole);
  }, [output, isRunning, isWhole]);
  return (
    <div class={`stream ${output.name}`}>
      <pre ref={box} class={`text ${isWhole ? "whole" : ""}`} {...(isTall ? { tabIndex: 0, role: "region", "aria-label": output.name === "stderr" ? "Standard error" : "Printed text" } : {})}
        onScroll={({ currentTarget: { scrollTop, clientHeight, scrollHeight } }) => { isAtEnd.current = scrollTop + clientHeight > scrollHeight - 24; }}>
        {cell === null ? <LongText text={output.head} name={`${output.name}.txt`} /> : <AnsiText text={output.head} />}
        {output.leftOut > 0 && (cell !== null ? <Gap session={session} cell={cell} output={output} /> : <span class="gap"><span>{bytes(output.leftOut)} are left out here; the session’s log has them</span></span>)}
        <AnsiText text={output.tail} />
      </pre>
      {isTall && (
        <div class="stream-tools">
          <button type="button" class="link" onClick={() => setWhole(!isWhole)}>{isWhole ? "Show less" : "Expand"}</button>
          {output.leftOut > 0 && cell !== null && (
            <button type="button" class="link" onClick={() => session.showOutput(cell, output.name)}>Open and search</button>
          )}
        </div>
      )}
    </div>
  );
});

/** Stands for the text that the page does not hold, and reads it from the server part by part. */
function Gap({ session, cell, output }: { session: Session; cell: string; output: StreamOutput }): JSX.Element {
  const [text, setText] = useState("");
  const [isBusy, setBusy] = useState(false);
  const left = Math.max(0, output.leftOut - utf8Length(text));
  const more = async (): Promise<void> => {
    setBusy(true);
    try {
      const from = (output.headEnd ?? 0) + utf8Length(text);
      const part = await session.api.output(session.id, cell, output.name, from, Math.min(PART, left));
      setText(text + part.text);
    } catch (error) {
      session.complain(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      {text !== "" && <AnsiText text={text} />}
      {left > 0 && (
        <span class="gap">
          <span>{bytes(left)} not shown here</span>
          <button type="button" class="link" disabled={isBusy} onClick={() => void more()}>{isBusy ? "Reading…" : "Show more"}</button>
          <button type="button" class="link" onClick={() => session.showOutput(cell, output.name)}>Open and search</button>
        </span>
      )}
    </>
  );
}
