// ipywidgets: the core ones, drawn by the page itself. What a widget says is shown as text, and its markup in a frame. Those that are not known here
// are named, with their text.

import type { Context, JSX } from "preact";
import { createContext } from "preact";
import { memo } from "preact/compat";
import { useContext, useEffect, useMemo, useReducer, useState } from "preact/hooks";
import type { Session } from "../session.ts";
import { childrenOf, formatted, numberIn, plainMarkup, reference, textIn, textsIn, type Widget } from "../widgets/model.ts";
import { Frame } from "./frame.tsx";
import { Outputs } from "./outputs.tsx";
import { Colour, Image, Moment, Range, Several } from "./pickers.tsx";
import { LongText } from "./text.tsx";
import { isOff, Line, named, optionsOf, useChange } from "./widget.tsx";

/** How many widgets one output may draw: boxes can hold each other, and themselves. */
const MOST_DRAWN = 300;

/** How deep boxes may stand in each other. */
const DEEPEST = 16;

const Depth: Context<number> = createContext(0);
const Room: Context<{ left: number }> = createContext({ left: 0 });

/** Widgets as an output shows them. */
export function Widgets({ session, id, text }: { session: Session; id: string; text: string }): JSX.Element | null {
  const room = useMemo(() => ({ left: MOST_DRAWN }), []);
  const widget = useWidget(session, id);
  if (widget === null) {
    // A bar that was closed is to leave nothing behind. One that was never seen is said.
    return session.view.notebook.widgets.closed.has(id) ? null : <Missing text={text} why="its beginning is not in the log any more" />;
  }
  return (
    <Room.Provider value={room}>
      <div class={`widgets ${widget.isAlive ? "" : "is-over"}`} role="group" aria-label="Widget">
        <One session={session} id={id} text={text} />
        {!widget.isAlive && INTERACTIVE.test(textOfModels(session, id)) && <p class="quiet-note">Its kernel is gone: this is how it stood last. Run the cell again for a new one.</p>}
      </div>
    </Room.Provider>
  );
}

const INTERACTIVE = /Slider|Picker|Text(area)?Model|Checkbox|Toggle|Dropdown|Select|Radio|Button/;

/** The kinds of a widget and of what is in it, a few levels deep. */
function textOfModels(session: Session, id: string, depth = 3): string {
  const widget = session.view.notebook.widgets.all.get(id);
  if (widget === undefined) return "";
  const inside = depth === 0 ? [] : childrenOf(widget.state).slice(0, 20).map((child) => textOfModels(session, child, depth - 1));
  return [widget.model, ...inside].join(" ");
}

/** A widget as it stands now, with what is being changed here; null if there is none. */
function useWidget(session: Session, id: string | null): Widget | null {
  const [, redraw] = useReducer<number, void>((count) => count + 1, 0);
  useEffect(() => {
    const look = (): readonly unknown[] => (id === null ? [] : [session.view.notebook.widgets.all.get(id), session.changes.shown(id)]);
    let before = look();
    redraw();
    return session.subscribe(() => {
      const now = look();
      if (now.every((part, index) => part === before[index])) return;
      before = now;
      redraw();
    });
  }, [session, id]);
  const widget = id === null ? undefined : session.view.notebook.widgets.all.get(id);
  if (id === null || widget === undefined) return null;
  const shown = session.changes.shown(id);
  return shown === null ? widget : { ...widget, state: { ...widget.state, ...shown } };
}

function Missing({ text, why }: { text: string; why: string }): JSX.Element {
  return (
    <div>
      {text !== "" && <pre class="text value"><LongText text={text} name="widget.txt" /></pre>}
      <p class="quiet-note">This widget cannot be drawn here: {why}.</p>
    </div>
  );
}

interface OneProps {
  session: Session;
  id: string;
  text?: string;
}

const One = memo(function One({ session, id, text = "" }: OneProps): JSX.Element | null {
  const room = useContext(Room);
  // Taken while it is drawn, not after: what is within it is drawn at once.
  const depth = useContext(Depth);
  const [hasRoom] = useState(() => room.left > 0 && depth < DEEPEST);
  useState(() => { if (hasRoom) room.left -= 1; });
  useEffect(() => () => { if (hasRoom) room.left += 1; }, [room, hasRoom]);
  const widget = useWidget(session, id);
  const layout = useWidget(session, widget === null ? null : reference(widget.state["layout"]));
  if (!hasRoom) return <span class="widget-text">…</span>;
  if (widget === null) return null;
  if (layout?.state["visibility"] === "hidden" || layout?.state["display"] === "none") return null;
  return (
    <>
      <Depth.Provider value={depth + 1}><Drawn session={session} widget={widget} text={text} /></Depth.Provider>
      {widget.problem !== null && <p class="told bad" role="alert">The kernel did not take this: {widget.problem}</p>}
    </>
  );
});

interface DrawnProps {
  session: Session;
  widget: Widget;
  text: string;
}

function Drawn({ session, widget, text }: DrawnProps): JSX.Element | null {
  const { state, model } = widget;
  switch (model) {
    case "HBoxModel":
    case "VBoxModel":
    case "BoxModel":
    case "GridBoxModel":
      return <Box session={session} widget={widget} />;
    case "AccordionModel":
    case "TabModel":
      return <Titled session={session} widget={widget} />;
    case "IntProgressModel":
    case "FloatProgressModel":
      return <Progress session={session} widget={widget} />;
    case "HTMLModel":
    case "HTMLMathModel":
      return <Markup session={session} widget={widget} />;
    case "LabelModel":
      return <span class="widget-text"><LongText text={textIn(state, "value")} name="label.txt" /></span>;
    case "IntSliderModel":
    case "FloatSliderModel":
    case "FloatLogSliderModel":
    case "SelectionSliderModel":
      return <Slider session={session} widget={widget} />;
    case "IntRangeSliderModel":
    case "FloatRangeSliderModel":
    case "SelectionRangeSliderModel":
      return <Range session={session} widget={widget} />;
    case "SelectMultipleModel":
      return <Several session={session} widget={widget} />;
    case "DatePickerModel":
    case "TimePickerModel":
      return <Moment session={session} widget={widget} />;
    case "ColorPickerModel":
      return <Colour session={session} widget={widget} />;
    case "ImageModel":
      return <Image session={session} widget={widget} />;
    case "IntTextModel":
    case "BoundedIntTextModel":
    case "FloatTextModel":
    case "BoundedFloatTextModel":
      return <NumberField session={session} widget={widget} />;
    case "TextModel":
    case "TextareaModel":
    case "PasswordModel":
      return <TextField session={session} widget={widget} />;
    case "CheckboxModel":
      return (
        <label class="widget-line">
          <input type="checkbox" checked={state["value"] === true} disabled={isOff(widget)} onChange={(event) => session.changes.change(widget.id, { value: event.currentTarget.checked })} />
          <span>{textIn(state, "description")}</span>
        </label>
      );
    case "ToggleButtonModel":
      return (
        <button type="button" class="button" aria-pressed={state["value"] === true} disabled={isOff(widget)} onClick={() => session.changes.change(widget.id, { value: state["value"] !== true })}>
          {textIn(state, "description") || "Toggle"}
        </button>
      );
    case "DropdownModel":
    case "SelectModel":
      return <Choice session={session} widget={widget} />;
    case "RadioButtonsModel":
      return <Radios session={session} widget={widget} />;
    case "ToggleButtonsModel":
      return <Toggles session={session} widget={widget} />;
    case "ButtonModel":
      return (
        <button type="button" class={`button ${textIn(state, "button_style") === "primary" ? "strong" : ""}`} disabled={isOff(widget)} onClick={() => session.changes.tell(widget.id, { event: "click" })}>
          {textIn(state, "description") || "Button"}
        </button>
      );
    case "ValidModel":
      return <Line widget={widget}><span>{state["value"] === true ? "✓" : `✗ ${textIn(state, "readout")}`}</span></Line>;
    case "OutputModel":
      return widget.outputs.length === 0 ? null : <Outputs session={session} cell={null} outputs={widget.outputs} isRunning={false} />;
    default:
      return <Missing text={text} why={`the page does not know ${model.replace(/Model$/, "") || "its kind"}`} />;
  }
}

function Box({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const children = childrenOf(widget.state).slice(0, MOST_DRAWN);
  return <div class={widget.model === "HBoxModel" ? "widget-row" : "widget-column"}>{children.map((id, index) => <One key={`${index}-${id}`} session={session} id={id} />)}</div>;
}

function Titled({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const titles = textsIn(widget.state, "titles");
  const chosen = numberIn(widget.state, "selected_index", widget.model === "TabModel" ? 0 : -1);
  return (
    <div class="widget-column">
      {childrenOf(widget.state).slice(0, 50).map((id, index) => (
        <details key={`${index}-${id}`} open={index === chosen}>
          <summary>{titles[index] || `Part ${index + 1}`}</summary>
          <One session={session} id={id} />
        </details>
      ))}
    </div>
  );
}

function Progress({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { state } = widget;
  const style = useWidget(session, reference(state["style"]));
  const [min, max] = [numberIn(state, "min", 0), numberIn(state, "max", 100)];
  const value = Math.min(Math.max(numberIn(state, "value", min), min), max);
  const part = max > min ? (100 * (value - min)) / (max - min) : 100;
  const colour = textIn(style?.state ?? {}, "bar_color");
  return (
    <Line widget={widget}>
      <div class={`widget-bar ${textIn(state, "bar_style")}`} role="progressbar" aria-label={named(widget)} aria-valuemin={min} aria-valuemax={max} aria-valuenow={value}>
        <div style={{ width: `${part}%`, ...(/^#?\w{1,30}$/.test(colour) ? { backgroundColor: colour } : {}) }} />
      </div>
    </Line>
  );
}

function Markup({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const value = textIn(widget.state, "value");
  const text = plainMarkup(value);
  // One object for one value: whatever is handed to a frame anew is drawn anew.
  const drawing = useMemo(() => ({ type: "html" as const, html: value }), [value]);
  return <Line widget={widget}>{text !== null ? <span class="widget-text">{text}</span> : <Frame session={session} drawing={drawing} title={named(widget)} />}</Line>;
}

function Slider({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { state, model } = widget;
  const labels = textsIn(state, "_options_labels");
  const isChoice = model === "SelectionSliderModel";
  const base = model === "FloatLogSliderModel" ? numberIn(state, "base", 10) : null;
  const value = isChoice ? numberIn(state, "index", 0) : numberIn(state, "value", 0);
  const at = base === null ? value : Math.log(value) / Math.log(base);
  const change = useChange(session, widget, (text) => {
    const number = Number(text);
    if (!Number.isFinite(number)) return null;
    return isChoice ? { index: number } : { value: base === null ? number : base ** number };
  });
  const shown = isChoice ? (labels[value] ?? "") : formatted(value, textIn(state, "readout_format"));
  const step = model === "IntSliderModel" || isChoice ? Math.max(1, numberIn(state, "step", 1)) : numberIn(state, "step", 0);
  return (
    <Line widget={widget}>
      <input type="range" aria-label={named(widget)} aria-valuetext={shown} min={isChoice ? 0 : numberIn(state, "min", 0)} max={isChoice ? Math.max(0, labels.length - 1) : numberIn(state, "max", 100)}
        step={step > 0 ? step : "any"} value={at} disabled={isOff(widget)} {...change} />
      {state["readout"] !== false && <output class="widget-value">{shown}</output>}
    </Line>
  );
}

function NumberField({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { state, model } = widget;
  const isWhole = model.includes("Int");
  const change = useChange(session, widget, (text) => {
    const number = Number(text);
    return text.trim() === "" || !Number.isFinite(number) || (isWhole && !Number.isInteger(number)) ? null : { value: number };
  });
  const bounds = model.startsWith("Bounded") ? { min: numberIn(state, "min", 0), max: numberIn(state, "max", 100) } : {};
  const step = numberIn(state, "step", 0);
  return (
    <Line widget={widget}>
      <input type="number" aria-label={named(widget)} value={numberIn(state, "value", 0)} step={step > 0 ? step : isWhole ? 1 : "any"} disabled={isOff(widget)} {...bounds} {...change} />
    </Line>
  );
}

function TextField({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { state, model } = widget;
  const change = useChange(session, widget, (text) => ({ value: text }));
  // A placeholder that is not set is a space of no width.
  const shared = { "aria-label": named(widget), placeholder: textIn(state, "placeholder").replace(/\u200b/g, ""), value: textIn(state, "value"), disabled: isOff(widget) };
  return (
    <Line widget={widget}>
      {model === "TextareaModel"
        ? <textarea {...shared} rows={Math.min(30, numberIn(state, "rows", 3))} {...change} />
        : <input {...(model === "PasswordModel" ? { type: "password" as const } : {})} {...shared} autocomplete="off" {...change}
            onKeyDown={(event) => { if (event.key === "Enter") session.changes.tell(widget.id, { event: "submit" }); }} />}
    </Line>
  );
}

function Choice({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { labels, index } = optionsOf(widget.state);
  const rows = widget.model === "SelectModel" ? Math.max(2, Math.min(30, numberIn(widget.state, "rows", 5))) : 1;
  return (
    <Line widget={widget}>
      <select aria-label={named(widget)} size={rows} value={index} disabled={isOff(widget)} onChange={(event) => session.changes.change(widget.id, { index: event.currentTarget.selectedIndex })}>
        {labels.map((label, at) => <option key={at} value={at}>{label}</option>)}
      </select>
    </Line>
  );
}

function Radios({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { labels, index } = optionsOf(widget.state);
  return (
    <fieldset class="widget-options" aria-label={named(widget)}>
      {textIn(widget.state, "description") !== "" && <legend>{textIn(widget.state, "description")}</legend>}
      {labels.map((label, at) => (
        <label key={at} class="widget-line">
          <input type="radio" name={widget.id} checked={at === index} disabled={isOff(widget)} onChange={() => session.changes.change(widget.id, { index: at })} /><span>{label}</span>
        </label>
      ))}
    </fieldset>
  );
}

function Toggles({ session, widget }: { session: Session; widget: Widget }): JSX.Element {
  const { labels, index } = optionsOf(widget.state);
  return (
    <Line widget={widget}>
      <div class="widget-toggles" role="group" aria-label={named(widget)}>
        {labels.map((label, at) => (
          <button key={at} type="button" class="button" aria-pressed={at === index} disabled={isOff(widget)} onClick={() => session.changes.change(widget.id, { index: at })}>{label}</button>
        ))}
      </div>
    </Line>
  );
}
