// What runs in the frame that an output is drawn in. Its origin is nobody's, its network is closed, and all it can do is to ask the page for height,
// or to say that a link was followed. Whatever the output's own scripts do to this code harms this output only.

import { disarm, tame } from "./disarm.ts";
import type { Followed, FromFrame, Theme, ToFrame } from "./messages.ts";

const output = document.getElementById("output") as HTMLElement;

function say(message: FromFrame, ports: MessagePort[] = []): void {
  // The page is of another origin, and which one it is cannot be known here. Nothing that is said is a secret.
  parent.postMessage(message, "*", ports);
}

/**
 * A way to the page that scripts of the output have not: what is said there was done by somebody's hand. They run in the same world, so it is used with
 * what was taken from that before they came, and never by a name that they could give to something else.
 */
const { port1: hand, port2: ofPage } = new MessageChannel();
// eslint-disable-next-line @typescript-eslint/unbound-method -- it is applied to the port
const post = MessagePort.prototype.postMessage as (message: Followed) => void;
const { apply } = Reflect;
function sayFollowed(url: string): void {
  apply(post, hand, [{ url }]);
}

function dress(theme: Theme): void {
  document.documentElement.style.colorScheme = theme.scheme;
  for (const [name, colour] of Object.entries(theme.colours)) document.documentElement.style.setProperty(name, colour);
}

/** Draws markup and runs its scripts in their order, as a notebook does. They are run by this one, which alone may. */
function drawHtml(html: string): void {
  // Tamed here too, for browsers without trusted types.
  output.innerHTML = tame(html);
  for (const element of output.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if (!name.startsWith("on")) continue;
      element.removeAttribute(name);
      element.addEventListener(name.slice(2), (event) => { (new Function("event", value) as (event: Event) => unknown).call(element, event); });
    }
  }
  for (const script of output.querySelectorAll("script")) {
    if (script.src !== "" || !/^(|text\/javascript|application\/javascript)$/.test(script.type)) continue;
    Object.defineProperty(document, "currentScript", { configurable: true, value: script });
    try {
      load(script.text);
    } catch (error) {
      fail(error);
    }
  }
  Object.defineProperty(document, "currentScript", { configurable: true, value: null });
}

function runScript(code: string): void {
  output.replaceChildren();
  try {
    // Jupyter gives a script the element that it may draw into.
    (new Function("element", code) as (element: HTMLElement) => void)(output);
  } catch (error) {
    fail(error);
  }
}

function fail(error: unknown): void {
  const text = document.createElement("div");
  text.className = "error";
  text.textContent = String(error);
  output.append(text);
}

interface Plotly {
  newPlot(element: HTMLElement, data: unknown, layout: unknown, config: unknown): Promise<unknown>;
  Plots: { resize(element: HTMLElement): void };
}

type DrawVega = (element: HTMLElement, spec: unknown, isLite: boolean, ink: string) => Promise<void>;

/** Runs a script as one of its own. */
function load(library: string): void {
  // Indirect, so that it runs as a script of its own does.
  (0, eval)(library);
}

async function drawPlotly(library: string, value: unknown, theme: Theme): Promise<void> {
  load(library);
  const { Plotly } = globalThis as unknown as { Plotly: Plotly };
  const figure = value as { data?: unknown; layout?: Record<string, unknown>; config?: Record<string, unknown> };
  const layout = { autosize: true, paper_bgcolor: "rgba(0,0,0,0)", ...figure.layout };
  if (theme.scheme === "dark" && layout.paper_bgcolor === "rgba(0,0,0,0)") Object.assign(layout, { font: { color: theme.colours["--ink"] } });
  await Plotly.newPlot(output, figure.data ?? [], layout, { responsive: true, displaylogo: false, ...figure.config });
}

async function drawVega(library: string, spec: unknown, isLite: boolean, theme: Theme): Promise<void> {
  load(library);
  await (globalThis as unknown as { drawVega: DrawVega }).drawVega(output, spec, isLite, theme.colours["--ink"] ?? "black");
}

addEventListener("message", (event: MessageEvent<ToFrame>) => {
  // Only the page that holds this frame may say what is drawn; frames beside it may not.
  if (event.source !== parent) return;
  const message = event.data;
  dress(message.theme);
  switch (message.type) {
    case "html":
      drawHtml(message.html);
      break;
    case "script":
      runScript(message.code);
      break;
    case "plotly":
      drawPlotly(message.library, message.data, message.theme).catch(fail);
      break;
    case "vega":
      drawVega(message.library, message.data, message.isLite, message.theme).catch(fail);
      break;
    case "theme":
      break;
  }
  measure();
});

// A link would open in this small frame; the page asks whether to open it, in a tab of its own.
addEventListener(
  "click",
  (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!(link instanceof HTMLAnchorElement)) return;
    if (link.getAttribute("href")?.startsWith("#") === true) return;
    event.preventDefault();
    if (event.isTrusted) sayFollowed(link.href);
  },
  true,
);

let last = -1;
function measure(): void {
  const height = Math.ceil(Math.max(output.getBoundingClientRect().height + 2, output.scrollHeight));
  if (height === last) return;
  last = height;
  say({ type: "height", height });
}

disarm();
new ResizeObserver(measure).observe(output);
addEventListener("load", measure);
say({ type: "ready" }, [ofPage]);
