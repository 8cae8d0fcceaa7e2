// How components follow what is outside of them.

import { useEffect, useReducer, useState } from "preact/hooks";
import type { Session, View } from "../session.ts";

/** What the session shows now; draws anew when it has changed: for what was done here at once, for what the log brings at most once a frame. */
export function useView(session: Session): View {
  const [, redraw] = useReducer<number, void>((count) => count + 1, 0);
  useEffect(() => {
    let isAsked = false;
    let isGone = false;
    const stop = session.subscribe((isUrgent) => {
      if (isUrgent) return redraw();
      if (isAsked) return;
      isAsked = true;
      const draw = (): void => {
        isAsked = false;
        if (!isGone) redraw();
      };
      // Hidden tabs get no frames, but their title is to be right.
      if (document.hidden) setTimeout(draw, 100);
      else requestAnimationFrame(draw);
    });
    redraw();
    return () => {
      isGone = true;
      stop();
    };
  }, [session]);
  return session.view;
}

/** Draws anew every so often. */
export function useTick(everyMs: number, isOn = true): void {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!isOn) return;
    const timer = setInterval(() => tick((count) => count + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs, isOn]);
}

/** Whether the page is dark at the moment. */
export function useDark(): boolean {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const listen = (): void => setDark(query.matches);
    query.addEventListener("change", listen);
    return () => query.removeEventListener("change", listen);
  }, []);
  return isDark;
}
