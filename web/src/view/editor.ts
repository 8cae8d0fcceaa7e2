// The editor of a cell: CodeMirror with what a notebook's cell needs, completion and inspection by the live kernel.

import { autocompletion, closeBrackets, closeBracketsKeymap, closeCompletion, completionStatus, completionKeymap, startCompletion, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentLess, indentMore, toggleComment } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, defineLanguageFacet, HighlightStyle, indentOnInput, indentUnit, Language, syntaxHighlighting, syntaxTree } from "@codemirror/language";
import { highlightSelectionMatches, openSearchPanel, searchKeymap } from "@codemirror/search";
import { Annotation, Compartment, EditorState, Prec, StateEffect, StateField, Transaction, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, keymap, lineNumbers, placeholder, showTooltip } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { parser as markdownParser } from "@lezer/markdown";
import { pieces } from "../output/ansi.ts";
import { textOf } from "../output/mime.ts";
import type { Session } from "../session.ts";
import type { CellKind } from "../document.ts";
import type { Completion, Inspection } from "../wire.ts";
import { split } from "./edits.ts";

/** Marks a change that did not come from the keyboard. */
const fromOutside = Annotation.define<boolean>();

/** Markdown alone: the whole language support would bring the grammars of HTML, CSS and JavaScript. */
const markdown = new Language(defineLanguageFacet(), markdownParser, [], "markdown");

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword, tags.definitionKeyword, tags.moduleKeyword], class: "tok-keyword" },
  { tag: [tags.string, tags.special(tags.string)], class: "tok-string" },
  { tag: [tags.number, tags.bool, tags.null], class: "tok-number" },
  { tag: [tags.comment], class: "tok-comment" },
  { tag: [tags.function(tags.variableName), tags.function(tags.definition(tags.variableName))], class: "tok-function" },
  { tag: [tags.className, tags.definition(tags.className)], class: "tok-class" },
  { tag: [tags.self, tags.special(tags.variableName)], class: "tok-self" },
  { tag: [tags.meta, tags.annotation], class: "tok-meta" },
  { tag: tags.heading, class: "tok-heading" },
  { tag: tags.strong, class: "tok-strong" },
  { tag: tags.emphasis, class: "tok-emphasis" },
  { tag: [tags.link, tags.url], class: "tok-link" },
]);

/** The nonce under which the page's policy lets the editor make style sheets. */
function nonce(): string {
  const meta = document.querySelector<HTMLMetaElement>("meta[property=csp-nonce]");
  return meta?.nonce ?? "";
}

export interface EditorOptions {
  session: Session;
  id: string;
  kind: CellKind;
  text: string;
  label: string;
}

export function makeEditor(parent: HTMLElement, { session, id, kind, text, label }: EditorOptions): EditorView {
  const view: EditorView = new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      extensions: [
        EditorView.cspNonce.of(nonce()),
        Prec.highest(keymap.of(cellKeys(session, id))),
        history(),
        numbers.of(session.view.hasLineNumbers ? lineNumbers() : []),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        highlightSelectionMatches(),
        indentUnit.of("    "),
        EditorState.tabSize.of(4),
        EditorView.lineWrapping,
        syntaxHighlighting(colours),
        kind === "code" ? codeExtensions(session) : [markdown, placeholder("Text, as Markdown. Shift+Enter shows it.")],
        keymap.of([
          ...closeBracketsKeymap, ...completionKeymap, { key: "Mod-/", run: toggleComment }, ...searchKeymap, ...historyKeymap, ...defaultKeymap,
        ]),
        EditorView.contentAttributes.of({ "aria-label": label, tabindex: "0", spellcheck: kind === "code" ? "false" : "true", autocapitalize: "off" }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged && !update.transactions.some((transaction) => transaction.annotation(fromOutside) === true)) {
            session.edit(id, update.state.doc.toString());
          }
          if (update.focusChanged && update.view.hasFocus) session.select(id, "edit");
        }),
      ],
    }),
  });
  return view;
}

/** Gives the editor a text that somebody else wrote, with the cursor staying where it is as far as it can. */
export function setText(view: EditorView, text: string): void {
  const now = view.state.doc.toString();
  if (now === text) return;
  let start = 0;
  while (start < now.length && start < text.length && now[start] === text[start]) start += 1;
  let end = 0;
  while (end < now.length - start && end < text.length - start && now[now.length - 1 - end] === text[text.length - 1 - end]) end += 1;
  view.dispatch({
    changes: { from: start, to: now.length - end, insert: text.slice(start, text.length - end) },
    // Undo takes back what was typed here, not what others wrote.
    annotations: [fromOutside.of(true), Transaction.addToHistory.of(false)],
  });
}

function leave(view: EditorView, how: () => void): boolean {
  closeCompletion(view);
  view.dispatch({ effects: setInspection.of(null) });
  view.contentDOM.blur();
  how();
  return true;
}

function cellKeys(session: Session, id: string): readonly { key: string; run: (view: EditorView) => boolean; preventDefault?: boolean }[] {
  return [
    { key: "Shift-Enter", run: (view) => leave(view, () => session.runAndAdvance(id)) },
    { key: "Mod-Enter", run: (view) => leave(view, () => { session.select(id, "command"); session.run(id); }) },
    { key: "Alt-Enter", run: (view) => leave(view, () => session.runAndInsert(id)) },
    // A list of completions that can be seen is closed first; one that is still awaited is nobody's concern.
    { key: "Escape", run: (view) => completionStatus(view.state) !== "active" && (closeInspection(view) || leave(view, () => session.select(id, "command"))) },
    { key: "ArrowUp", run: (view) => step(session, view, -1) },
    { key: "ArrowDown", run: (view) => step(session, view, 1) },
    {
      key: "Mod-Shift--", preventDefault: true,
      run: (view) => { split(session, id, view.state.selection.main.head); session.entering = "start"; return true; },
    },
    { key: "Mod-s", run: () => { void session.flush(); return true; } },
    { key: "Alt-e", run: () => { session.extend(); return true; } },
  ];
}

/** An arrow that leads out of the text leads into the next cell. */
function step(session: Session, view: EditorView, by: -1 | 1): boolean {
  const { main } = view.state.selection;
  const edge = by === -1 ? 0 : view.state.doc.length;
  const [here, there] = [view.coordsAtPos(main.head), view.coordsAtPos(edge)];
  if (!main.empty || completionStatus(view.state) === "active" || here === null || there === null || Math.abs(here.top - there.top) > 2) return false;
  const next = session.beside(by);
  if (next === undefined || next.id === session.view.selected) return false;
  return leave(view, () => {
    // Text that is shown as such is not opened in passing.
    if (next.kind === "markdown" && !session.view.opened.has(next.id)) session.select(next.id);
    else session.enter(next.id, by === -1 ? "end" : "start");
  });
}

/** Goes into an editor as the session says. */
export function enter(session: Session, view: EditorView): void {
  view.focus();
  const how = session.entering;
  session.entering = null;
  if (how === "find") openSearchPanel(view);
  else if (how !== null) view.dispatch({ selection: { anchor: how === "start" ? 0 : view.state.doc.length }, scrollIntoView: true });
}

const numbers = new Compartment();

export function setLineNumbers(view: EditorView, isOn: boolean): void {
  view.dispatch({ effects: numbers.reconfigure(isOn ? lineNumbers() : []) });
}

// --- the kernel's help -----------------------------------------------------------------------------------------------------

function codeExtensions(session: Session): Extension {
  return [
    python(),
    autocompletion({ override: [(context) => complete(session, context)], activateOnTyping: true, icons: false, maxRenderedOptions: 60 }),
    placeholder("Python. Shift+Enter runs it."),
    inspection,
    Prec.high(
      keymap.of([
        { key: "Shift-Tab", run: (view) => (view.state.selection.main.empty && inspect(session, view)) || indentLess(view) },
        { key: "Tab", run: (view) => indentAtStart(view) },
      ]),
    ),
  ];
}

/** Tab indents where there is nothing to complete before the cursor, as in JupyterLab; elsewhere completion takes it. */
function indentAtStart(view: EditorView): boolean {
  const { main } = view.state.selection;
  const line = view.state.doc.lineAt(main.head);
  const before = line.text.slice(0, main.head - line.from);
  if (!main.empty) return indentMore(view);
  if (before.trim() === "") {
    view.dispatch(view.state.replaceSelection("    ".slice(before.length % 4)));
    return true;
  }
  return startCompletion(view);
}

/** How many code points come before a position, as the server counts. */
function codePoints(text: string, position: number): number {
  let count = 0;
  for (const _ of text.slice(0, position)) count += 1;
  return count;
}

function unitsOf(text: string, points: number): number {
  let units = 0;
  let count = 0;
  for (const char of text) {
    if (count === points) break;
    units += char.length;
    count += 1;
  }
  return units;
}

async function complete(session: Session, context: CompletionContext): Promise<CompletionResult | null> {
  const word = context.matchBefore(/[\w.]+/);
  const node = syntaxTree(context.state).resolveInner(context.pos, -1).name;
  if (!context.explicit && (node === "Comment" || node === "String")) return null;
  // While typing, only after a dot or a few letters: each question goes to the kernel.
  if (!context.explicit && (word === null || (!word.text.includes(".") && word.text.length < 3))) return null;
  const code = context.state.doc.toString();
  try {
    const answer = await session.ask<Completion>("complete", { code, cursor: codePoints(code, context.pos) });
    if (context.aborted) return null;
    const from = unitsOf(code, answer.start);
    return {
      from,
      to: Math.max(from, unitsOf(code, answer.end)),
      options: answer.matches.slice(0, 500).map(({ text, type }) => ({ label: text, ...(type === undefined || type === "" ? {} : { detail: type }) })),
      validFor: /^\w*$/,
    };
  } catch {
    // A kernel that is busy answers later; completion just does not come up.
    return null;
  }
}

interface Shown {
  position: number;
  text: string;
}

const setInspection = StateEffect.define<Shown | null>();

const inspection = StateField.define<Shown | null>({
  create: () => null,
  update(value, transaction) {
    for (const effect of transaction.effects) if (effect.is(setInspection)) return effect.value;
    return transaction.docChanged ? null : value;
  },
  provide: (field) =>
    showTooltip.from(field, (shown) =>
      shown === null
        ? null
        : {
            pos: shown.position,
            above: false,
            create: () => {
              const dom = document.createElement("div");
              dom.className = "inspection";
              dom.setAttribute("role", "region");
              dom.setAttribute("aria-label", "What the kernel says of this");
              for (const piece of pieces(shown.text)) {
                const part = document.createElement("span");
                part.textContent = piece.text;
                if (piece.look !== null) part.className = "inspection-title";
                dom.append(part);
              }
              return { dom };
            },
          },
    ),
});

function inspect(session: Session, view: EditorView): boolean {
  const position = view.state.selection.main.head;
  const line = view.state.doc.lineAt(position);
  if (line.text.slice(0, position - line.from).trim() === "") return false;
  closeCompletion(view);
  const code = view.state.doc.toString();
  session.ask<Inspection>("inspect", { code, cursor: codePoints(code, position), detail: 0 }).then(
    (answer) => {
      const text = textOf(answer.data?.["text/plain"]);
      view.dispatch({ effects: setInspection.of({ position, text: answer.found && text !== null ? text : "Nothing is known of this." }) });
    },
    (error: unknown) => view.dispatch({ effects: setInspection.of({ position, text: error instanceof Error ? error.message : String(error) }) }),
  );
  return true;
}

function closeInspection(view: EditorView): boolean {
  if ((view.state.field(inspection, false) ?? null) === null) return false;
  view.dispatch({ effects: setInspection.of(null) });
  return true;
}
