// How components follow what is outside of them.

import { useEffect, useReducer, useState } from "preact/hooks";
import { ApiError } from "../api.ts";
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

/** How often it is asked what a running cell uses. A short cell is over before the first time. */
const USAGE_EVERY = 1000;

/** What a session uses now, asked for as long as somebody can see it. */
export function useUsage(session: Session): { memory: number | null; processors: number | null } | null {
  const [usage, setUsage] = useState<{ memory: number | null; processors: number | null } | null>(null);
  useEffect(() => {
    let isGone = false;
    let before: { at: number; cpu: number } | null = null;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async (): Promise<void> => {
      try {
        if (!document.hidden && session.view.link.state === "live") {
          const { memory_bytes: memory, cpu_ms: cpu } = await session.api.usage(session.id);
          const at = performance.now();
          // Another sandbox counts from its own beginning.
          const processors = before === null || cpu < before.cpu ? null : (cpu - before.cpu) / (at - before.at);
          before = { at, cpu };
          if (!isGone) setUsage({ memory, processors });
        }
      } catch (error) {
        // The connection, or the cell's verdict, says what is wrong.
        if (!(error instanceof ApiError)) throw error;
      }
      if (!isGone) timer = setTimeout(() => void ask(), USAGE_EVERY);
    };
    timer = setTimeout(() => void ask(), USAGE_EVERY / 2);
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, [session]);
  return usage;
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
