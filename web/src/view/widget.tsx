// What all widgets have in common: a name before them, whether they take changes, and how a change gets to the kernel.

import type { ComponentChildren, JSX } from "preact";
import type { Session } from "../session.ts";
import { numberIn, textIn, textsIn, type Widget, type WidgetState } from "../widgets/model.ts";

export function isOff(widget: Widget): boolean {
  return !widget.isAlive || widget.state["disabled"] === true;
}

/** A widget with what it is called before it. */
export function Line({ widget, children }: { widget: Widget; children: ComponentChildren }): JSX.Element {
  const description = textIn(widget.state, "description");
  return <div class="widget-line">{description !== "" && <span class="widget-name">{description}</span>}{children}</div>;
}

/** What to call a field for whoever does not see it. */
export function named(widget: Widget): string {
  return textIn(widget.state, "description") || widget.model.replace(/Model$/, "");
}

/** Changes while somebody moves or types, or when they are done, as the widget wants it. */
export function useChange(session: Session, widget: Widget, toState: (text: string) => WidgetState | null): { onInput?: (event: Event) => void; onChangeCapture?: (event: Event) => void } {
  const take = (event: Event): void => {
    const state = toState((event.currentTarget as HTMLInputElement).value);
    if (state !== null) session.changes.change(widget.id, state);
  };
  // Captured, since preact/compat makes `onInput` of an `onChange`.
  return widget.state["continuous_update"] === false ? { onChangeCapture: take } : { onInput: take };
}

/** The options that a widget offers, and which of them is taken. */
export function optionsOf(state: WidgetState): { labels: string[]; index: number } {
  return { labels: textsIn(state, "_options_labels").slice(0, 2000), index: numberIn(state, "index", -1) };
}
