// Vega and Vega-Lite, for frames. The page gives a frame the text of this when the first such figure is drawn.

import { Handler } from "vega-tooltip";
import { parse, View, type Spec } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

async function draw(element: HTMLElement, spec: unknown, isLite: boolean, ink: string): Promise<void> {
  const quiet = {
    background: "transparent",
    axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink }, legend: { labelColor: ink, titleColor: ink }, title: { color: ink },
    style: { "guide-label": { fill: ink }, "guide-title": { fill: ink } },
  };
  const full = isLite ? compile(spec as TopLevelSpec, { config: quiet }).spec : (spec as Spec);
  const view = new View(parse(full, isLite ? undefined : quiet), { renderer: "svg", hover: true, tooltip: new Handler().call });
  await view.initialize(element).runAsync();
}

Object.assign(globalThis, { drawVega: draw });
