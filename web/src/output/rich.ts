// Markdown and maths. Loaded when the first of them is shown. What it makes is a list of tokens, for the page to build elements from, or markup, which
// is drawn in a frame only.

import createMarkdown, { type MarkdownIt, type MarkdownItOptions, type Token } from "markdown-it";
import temml from "temml";

/** `$…$` and `$$…$$`, as notebooks write maths, taken before anything in it can be read as Markdown. */
function maths(markdown: MarkdownIt): void {
  markdown.inline.ruler.before("escape", "math", (state, silent) => {
    if (state.src[state.pos] !== "$") return false;
    const fence = state.src.startsWith("$$", state.pos) ? "$$" : "$";
    const start = state.pos + fence.length;
    let end = state.src.indexOf(fence, start);
    while (end > 0 && state.src[end - 1] === "\\") end = state.src.indexOf(fence, end + 1);
    if (end <= start) return false;
    const text = state.src.slice(start, end);
    // "$5 and $6" is no maths.
    if (fence === "$" && (/^\s|\s$/.test(text) || /\d/.test(state.src[end + 1] ?? ""))) return false;
    if (!silent) {
      const token = state.push("math", "", 0);
      token.content = text;
      token.markup = fence;
    }
    state.pos = end + fence.length;
    return true;
  });
  markdown.renderer.rules["math"] = (tokens, index) => {
    const token = tokens[index];
    return token === undefined ? "" : mathMarkup(token.content, token.markup === "$$");
  };
}

function reader(rules: MarkdownItOptions): MarkdownIt {
  const markdown = createMarkdown(rules);
  markdown.use(maths);
  return markdown;
}

const ofCells = reader({ html: false, linkify: true });
const ofOutputs = reader({ html: true, linkify: true });

/** A text as tokens, none of which is markup. */
export function tokens(text: string): Token[] {
  return ofCells.parse(text, {});
}

/** A text as markup, for a frame. */
export function markdownMarkup(text: string): string {
  return ofOutputs.render(text);
}

/** A formula as markup, for a frame. */
export function mathMarkup(text: string, isDisplay: boolean): string {
  return temml.renderToString(text, { displayMode: isDisplay, throwOnError: false, trust: false });
}

/** A formula of an output, which says by itself whether it stands in a line. */
export function latexMarkup(text: string): string {
  const trimmed = text.trim();
  const match = /^(\$\$?|\\\[|\\\()([\s\S]*?)(\$\$?|\\\]|\\\))$/.exec(trimmed);
  // sympy writes `$\displaystyle …$`.
  return match === null ? mathMarkup(trimmed, true) : mathMarkup(match[2] ?? "", match[1] === "$$" || match[1] === "\\[");
}

/** Draws a formula into an element of the page, element by element. */
export function drawMath(text: string, element: HTMLElement, isDisplay: boolean): void {
  temml.render(text, element, { displayMode: isDisplay, throwOnError: false, trust: false });
}

/** A cell's text as markup, for a page that is saved: no markup of the text itself is in it. Pictures that are attached come from `picture`. */
export function cellMarkup(text: string, picture: (name: string) => string | null): string {
  const parsed = ofCells.parse(text, {});
  for (const { children } of parsed) {
    for (const token of children ?? []) {
      const attached = token.type === "image" ? /^attachment:(.*)$/.exec(String(token.attrGet("src") ?? "")) : null;
      if (attached !== null) token.attrSet("src", picture(nameOf(attached[1] ?? "")) ?? "");
    }
  }
  return ofCells.renderer.render(parsed, ofCells.options, {});
}

/** The name of an attachment as a notebook has it: in an address some characters are written otherwise. */
export function nameOf(address: string): string {
  try {
    return decodeURIComponent(address);
  } catch {
    return address;
  }
}
