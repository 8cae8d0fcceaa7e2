// The keys of command mode, as JupyterLab has them.

import type { Session } from "../session.ts";
import { cutChosen, merge, removeChosen, runChosen, setHeading, setKindOfChosen } from "./edits.ts";

/** For the help, by groups. */
export const KEYS: readonly { title: string; keys: readonly (readonly [string, string])[] }[] = [
  {
    title: "Run",
    keys: [
      ["Shift+Enter", "Run and go to the next cell"], ["Ctrl+Enter", "Run and stay"], ["Alt+Enter", "Run and insert a cell"],
      ["E", "Give the running cell 30 seconds more, or what may be given (Alt+E while typing)"], ["I, I", "Interrupt"], ["0, 0", "Restart the kernel"],
    ],
  },
  {
    title: "Move about",
    keys: [["Enter", "Edit the cell"], ["Esc", "Leave the editor"], ["↑ ↓, K J", "Go to the cell above or below"], ["Shift+↑ ↓, Shift+K J", "Select several cells"], ["Ctrl+Shift+↑ ↓", "Move the cell"], ["F", "Find in the cell"]],
  },
  {
    title: "Change",
    keys: [
      ["A, B", "Insert a cell above or below"], ["D, D", "Delete"], ["Z", "Undo a deletion"], ["X, C, V", "Cut, copy, paste below"], ["Shift+V", "Paste above"],
      ["Shift+M", "Merge the selected cells, or with the one below"], ["M, Y", "Make it text, make it code"], ["1 to 6", "Make it a heading"],
    ],
  },
  { title: "Look", keys: [["O", "Fold the output away, or show it"], ["L", "Line numbers"]] },
  {
    title: "In the editor",
    keys: [
      ["Tab", "Complete, or indent"], ["Shift+Tab", "Ask the kernel about the name, or dedent"], ["Ctrl+/", "Comment"], ["Ctrl+Shift+-", "Split the cell"],
      ["Ctrl+Z", "Undo"], ["Ctrl+F", "Find in the cell"], ["↑ ↓ at the edge", "Go to the cell above or below"],
    ],
  },
];

/** Listens to the keyboard for a session; returns what stops that. */
export function listenToKeys(session: Session): () => void {
  let before = { key: "", at: 0 };
  const listen = (event: KeyboardEvent): void => {
    const target = event.target instanceof Element ? event.target : null;
    if (session.view.dialog !== null || event.defaultPrevented || event.isComposing) return;
    if (target?.closest(".cm-editor, input, textarea, select, dialog, [contenteditable=true]") !== null) return;
    const { selected } = session.view;
    const isChord = event.ctrlKey || event.metaKey;
    const isTwice = before.key === event.key && event.timeStamp - before.at < 800;
    before = { key: isTwice ? "" : event.key, at: event.timeStamp };
    const does = (what: () => void): void => {
      event.preventDefault();
      what();
    };
    if (event.key === "Enter" && selected !== null) {
      // A button that has the keyboard is pressed by Enter.
      if (target?.closest("button, a, summary") !== null && !event.shiftKey && !isChord && !event.altKey) return;
      const last = session.chosen().at(-1)?.id ?? selected;
      if (event.shiftKey) does(() => { for (const cell of session.chosen().slice(0, -1)) session.run(cell.id); session.runAndAdvance(last); });
      else if (isChord) does(() => runChosen(session));
      else if (event.altKey) does(() => session.runAndInsert(selected));
      else does(() => { session.setOpened(selected, true); session.select(selected, "edit"); });
      return;
    }
    if (isChord && event.shiftKey && selected !== null) {
      if (event.key === "ArrowUp") does(() => session.move(selected, -1));
      if (event.key === "ArrowDown") does(() => session.move(selected, 1));
      return;
    }
    if (isChord && event.key === "s") return does(() => void session.flush());
    if (isChord || event.altKey) return;
    // What scrolls itself, and what is not to be pressed by accident, keeps the arrows.
    const isScroller = target?.closest(".text[tabindex], iframe") !== null;
    switch (event.key) {
      case "ArrowUp": if (!isScroller) does(() => (event.shiftKey ? session.chooseTo(session.beside(-1)?.id) : session.selectBy(-1))); break;
      case "ArrowDown": if (!isScroller) does(() => (event.shiftKey ? session.chooseTo(session.beside(1)?.id) : session.selectBy(1))); break;
      case "k": does(() => session.selectBy(-1)); break;
      case "j": does(() => session.selectBy(1)); break;
      case "K": does(() => session.chooseTo(session.beside(-1)?.id)); break;
      case "J": does(() => session.chooseTo(session.beside(1)?.id)); break;
      case "Escape": if (selected !== null) session.select(selected); break;
      case "a": does(() => session.insertBeside("above")); break;
      case "b": does(() => session.insertBeside("below")); break;
      case "d": if (isTwice) does(() => removeChosen(session)); break;
      case "x": does(() => cutChosen(session)); break;
      case "c": does(() => session.copy(session.chosen())); break;
      case "v": does(() => session.paste()); break;
      case "V": does(() => session.paste("above")); break;
      case "z": does(() => session.undoRemove()); break;
      case "m": does(() => setKindOfChosen(session, "markdown")); break;
      case "y": does(() => setKindOfChosen(session, "code")); break;
      case "M": does(() => merge(session)); break;
      case "1": case "2": case "3": case "4": case "5": case "6": if (selected !== null) does(() => setHeading(session, selected, Number(event.key))); break;
      case "o": does(() => session.fold(session.chosen())); break;
      case "l": does(() => session.toggleLineNumbers()); break;
      case "f": if (selected !== null) does(() => { session.setOpened(selected, true); session.enter(selected, "find"); }); break;
      case "e": does(() => session.extend()); break;
      case "i": if (isTwice) does(() => session.interrupt()); break;
      case "0": if (isTwice) does(() => session.confirmRestart()); break;
      case "?": does(() => session.show({ kind: "help" })); break;
    }
  };
  addEventListener("keydown", listen);
  return () => removeEventListener("keydown", listen);
}
