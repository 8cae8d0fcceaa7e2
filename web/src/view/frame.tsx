// The page's side of a frame that an output is drawn in.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { fromFrame, linkOf, type Theme, type ToFrame } from "../frame/messages.ts";
import type { Session } from "../session.ts";
import { useDark } from "./hooks.ts";
import { watchKeyboard } from "./keyboard.ts";

/** What a frame may do. Never `allow-same-origin`: with it, an output could do all that the page can. */
export const SANDBOX = "allow-scripts";

/** The tallest frame; what is taller scrolls within it. */
const TALLEST = 8000;

/** How often a frame that starts anew is told again what to draw: outputs may reload themselves, but not for ever. */
const MOST_STARTS = 10;

export type Drawing = ToFrame extends infer Message ? (Message extends { theme: Theme } ? Omit<Message, "theme"> : never) : never;

const COLOURS = ["--paper", "--ink", "--quiet", "--line", "--stripe", "--accent", "--bad"];

export function themeOf(isDark: boolean): Theme {
  const style = getComputedStyle(document.documentElement);
  return {
    scheme: isDark ? "dark" : "light",
    colours: Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(name)])),
  };
}

export function Frame({ session, drawing, title }: { session: Session; drawing: Drawing; title: string }): JSX.Element {
  const element = useRef<HTMLIFrameElement>(null);
  const starts = useRef(0);
  const [height, setHeight] = useState(32);
  const isDark = useDark();
  const now = useRef({ drawing, isDark });
  now.current = { drawing, isDark };
  const isStarted = useRef(false);
  const [isStopped, setStopped] = useState(false);
  const send = (message: Drawing | { type: "theme" }): void => {
    // The frame's origin is opaque and cannot be named; what is sent is what the frame is there to draw.
    element.current?.contentWindow?.postMessage({ ...message, theme: themeOf(now.current.isDark) }, "*");
  };
  useEffect(() => {
    const gone = new AbortController();
    const follow = ({ data }: MessageEvent): void => {
      const url = linkOf(data);
      if (url !== null) session.offerLink(url);
    };
    const listen = (event: MessageEvent): void => {
      // Frames cannot speak for each other: the browser says who sent a message.
      if (element.current === null || event.source !== element.current.contentWindow) return;
      const message = fromFrame(event.data);
      if (message?.type === "ready" && starts.current < MOST_STARTS) {
        // The first is said before anything of the output runs, so what comes through its port is said by the frame's own script. Later ones may be anybody's.
        const port = starts.current === 0 ? event.ports[0] : undefined;
        port?.addEventListener("message", follow, { signal: gone.signal });
        port?.start();
        starts.current += 1;
        isStarted.current = true;
        send(now.current.drawing);
      }
      if (message?.type === "height") setHeight(Math.min(Math.max(message.height, 8), TALLEST));
    };
    addEventListener("message", listen, { signal: gone.signal });
    return () => gone.abort();
  }, [session]);
  useEffect(() => watchKeyboard(() => element.current, (from) => {
    setStopped(true);
    // The frame goes first, else it would take the keyboard once more.
    setTimeout(() => from.focus({ preventScroll: true }));
  }), []);
  useEffect(() => {
    if (isStarted.current) send(drawing);
  }, [drawing]);
  useEffect(() => {
    if (isStarted.current) send({ type: "theme" });
  }, [isDark]);
  if (isStopped) {
    const again = (): void => {
      starts.current = 0;
      isStarted.current = false;
      setStopped(false);
    };
    return <p class="quiet-note" role="alert">This output took the keyboard from somebody who was typing, so it was stopped. <button type="button" class="link" onClick={again}>Draw it again</button></p>;
  }
  return (
    <iframe ref={element} class="frame" title={title} sandbox={SANDBOX} src="/frame.html" loading="lazy" referrerpolicy="no-referrer"
      style={{ height: `${height}px` }} scrolling={height >= TALLEST ? "auto" : "no"} />
  );
}
