// The page's side of a frame that an output is drawn in.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { fromFrame, type Theme, type ToFrame } from "../frame/messages.ts";
import type { Session } from "../session.ts";
import { useDark } from "./hooks.ts";

/** What a frame may do. Never `allow-same-origin`: with it, an output could do all that the page can. */
export const SANDBOX = "allow-scripts";

/** The tallest frame; what is taller scrolls within it. */
const TALLEST = 8000;

/** How often a frame that starts anew is told again what to draw: outputs may reload themselves, but not for ever. */
const MOST_STARTS = 10;

/** How long a browser counts somebody as active after a click or a key. */
const ACTIVATION = 5_000;

/** When somebody last did something on the page itself, and when the pointer last moved there. Tab may lead into a frame, so it does not count. */
let touchedAt = -Infinity;
let movedAt = -Infinity;
let pointer = "";

/** Begins to note what somebody does on the page; returns what ends that. */
export function watchHands(): () => void {
  const touch = (event: Event): void => { if (!(event instanceof KeyboardEvent && event.key === "Tab")) touchedAt = performance.now(); };
  // A frame that comes to lie under a pointer at rest is told of as if it had moved.
  const move = (event: MouseEvent): void => {
    const now = `${event.screenX},${event.screenY}`;
    if (now !== pointer) movedAt = performance.now();
    pointer = now;
  };
  const ended = new AbortController();
  const how = { capture: true, signal: ended.signal };
  for (const kind of ["pointerdown", "pointerup", "keydown"]) addEventListener(kind, touch, how);
  for (const kind of ["mouseover", "mousemove"] as const) addEventListener(kind, move, how);
  return () => ended.abort();
}

/**
 * Whether somebody is at work in this very frame: an output is not to put questions in the way by itself. A click anywhere makes all frames active, and a
 * frame can take the keyboard when it likes, so more is asked for: the pointer has been moved into it, or nothing was touched beside it of late.
 */
function isAtWorkIn(frame: HTMLIFrameElement): boolean {
  if (document.activeElement !== frame || navigator.userActivation?.isActive === false) return false;
  const isPointedAt = frame.matches(":hover") && movedAt > touchedAt;
  return isPointedAt || performance.now() - touchedAt > ACTIVATION + 500 || matchMedia("(hover: none)").matches;
}

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
  const send = (message: Drawing | { type: "theme" }): void => {
    // The frame's origin is opaque and cannot be named; what is sent is what the frame is there to draw.
    element.current?.contentWindow?.postMessage({ ...message, theme: themeOf(now.current.isDark) }, "*");
  };
  useEffect(() => {
    const listen = (event: MessageEvent): void => {
      // Frames cannot speak for each other: the browser says who sent a message.
      if (element.current === null || event.source !== element.current.contentWindow) return;
      const message = fromFrame(event.data);
      if (message?.type === "ready" && starts.current < MOST_STARTS) {
        starts.current += 1;
        isStarted.current = true;
        send(now.current.drawing);
      }
      if (message?.type === "height") setHeight(Math.min(Math.max(message.height, 8), TALLEST));
      if (message?.type === "link" && isAtWorkIn(element.current)) session.offerLink(message.url);
    };
    addEventListener("message", listen);
    return () => removeEventListener("message", listen);
  }, [session]);
  useEffect(() => {
    if (isStarted.current) send(drawing);
  }, [drawing]);
  useEffect(() => {
    if (isStarted.current) send({ type: "theme" });
  }, [isDark]);
  return (
    <iframe ref={element} class="frame" title={title} sandbox={SANDBOX} src="/frame.html" loading="lazy" referrerpolicy="no-referrer"
      style={{ height: `${height}px` }} scrolling={height >= TALLEST ? "auto" : "no"} />
  );
}
