// Widgets that pick more than one value, or one that is neither number nor text.

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { bytesOf } from "../output/mime.ts";
import { isRecord } from "../output/nbformat.ts";
import type { BundleOutput } from "../reduce.ts";
import type { Session } from "../session.ts";
import { formatted, numberIn, numbersIn, textIn, textsIn, type Widget } from "../widgets/model.ts";
import { Outputs } from "./outputs.tsx";
import { isOff, Line, named, optionsOf, useChange } from "./widget.tsx";

interface Props {
  session: Session;
  widget: Widget;
}

/** Two sliders, of which neither passes the other. */
export function Range({ session, widget }: Props): JSX.Element {
  const { state, model } = widget;
  const labels = textsIn(state, "_options_labels");
  const isChoice = model === "SelectionRangeSliderModel";
  const key = isChoice ? "index" : "value";
  const [low = 0, high = low] = numbersIn(state, key);
  const changeLow = useChange(session, widget, (text) => ({ [key]: [Math.min(Number(text), high), high] }));
  const changeHigh = useChange(session, widget, (text) => ({ [key]: [low, Math.max(Number(text), low)] }));
  const step = model === "FloatRangeSliderModel" ? numberIn(state, "step", 0) : Math.max(1, numberIn(state, "step", 1));
  const shared = {
    type: "range" as const, min: isChoice ? 0 : numberIn(state, "min", 0), max: isChoice ? Math.max(0, labels.length - 1) : numberIn(state, "max", 100), step: step > 0 ? step : "any",
    disabled: isOff(widget),
  };
  const say = (value: number): string => (isChoice ? (labels[value] ?? "") : formatted(value, textIn(state, "readout_format")));
  return (
    <Line widget={widget}>
      <input {...shared} aria-label={`${named(widget)}, from`} aria-valuetext={say(low)} value={low} {...changeLow} />
      <input {...shared} aria-label={`${named(widget)}, to`} aria-valuetext={say(high)} value={high} {...changeHigh} />
      {state["readout"] !== false && <output class="widget-value">{say(low)} – {say(high)}</output>}
    </Line>
  );
}

/** A list of which any number can be taken. */
export function Several({ session, widget }: Props): JSX.Element {
  const { labels } = optionsOf(widget.state);
  const taken = numbersIn(widget.state, "index");
  return (
    <Line widget={widget}>
      <select multiple aria-label={named(widget)} size={Math.max(2, Math.min(30, numberIn(widget.state, "rows", 5)))} disabled={isOff(widget)}
        onChange={(event) => session.changes.change(widget.id, { index: [...event.currentTarget.selectedOptions].map((option) => option.index) })}>
        {labels.map((label, at) => <option key={at} value={at} selected={taken.includes(at)}>{label}</option>)}
      </select>
    </Line>
  );
}

const two = (number: number): string => String(number).padStart(2, "0");

/** A day or a time of day. Python's months begin at 0 here, and what is not chosen is null. */
export function Moment({ session, widget }: Props): JSX.Element {
  const isDay = widget.model === "DatePickerModel";
  const value = widget.state["value"];
  const part = (name: string): number => (isRecord(value) ? numberIn(value, name, 0) : 0);
  const text = !isRecord(value) ? "" : isDay
    ? `${String(part("year")).padStart(4, "0")}-${two(part("month") + 1)}-${two(part("date"))}`
    : `${two(part("hours"))}:${two(part("minutes"))}:${two(part("seconds"))}`;
  return (
    <Line widget={widget}>
      <input type={isDay ? "date" : "time"} {...(isDay ? {} : { step: 1 })} aria-label={named(widget)} value={text} disabled={isOff(widget)}
        onChangeCapture={(event) => {
          const [first, second, third] = event.currentTarget.value.split(/[-:]/).map(Number);
          const chosen = isDay ? { year: first, month: (second ?? 1) - 1, date: third } : { hours: first, minutes: second, seconds: third ?? 0, milliseconds: 0 };
          session.changes.change(widget.id, { value: event.currentTarget.value === "" ? null : chosen });
        }} />
    </Line>
  );
}

/** A colour, chosen or written. */
export function Colour({ session, widget }: Props): JSX.Element {
  const value = textIn(widget.state, "value");
  const take = (event: { currentTarget: HTMLInputElement }): void => session.changes.change(widget.id, { value: event.currentTarget.value });
  return (
    <Line widget={widget}>
      <input type="color" aria-label={named(widget)} value={/^#[0-9a-f]{6}$/i.test(value) ? value : "#000000"} disabled={isOff(widget)} onChangeCapture={take} />
      {widget.state["concise"] !== true && <input aria-label={`${named(widget)}, in words`} value={value} disabled={isOff(widget)} onChangeCapture={take} />}
    </Line>
  );
}

/** A picture: an output like any other, whatever it holds. */
export function Image({ session, widget }: Props): JSX.Element | null {
  const [value, format] = [textIn(widget.state, "value"), textIn(widget.state, "format").toLowerCase()];
  const outputs = useMemo((): BundleOutput[] => {
    const type = format === "jpg" ? "jpeg" : format;
    const data = type.startsWith("svg") ? { "image/svg+xml": new TextDecoder().decode(bytesOf(value) ?? undefined) } : { [`image/${type}`]: value };
    return [{ kind: "bundle", key: 0, data, metadata: {}, displayId: null, isResult: false, seq: 0, weight: 0 }];
  }, [value, format]);
  return value === "" ? null : <Outputs session={session} cell={null} outputs={outputs} isRunning={false} />;
}
