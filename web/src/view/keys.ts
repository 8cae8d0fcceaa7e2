// The keys of command mode, as JupyterLab has them.

import type { Session } from "../session.ts";

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
    keys: [["Enter", "Edit the cell"], ["Esc", "Leave the editor"], ["↑ ↓, K J", "Go to the cell above or below"], ["Ctrl+Shift+↑ ↓", "Move the cell"]],
  },
  {
    title: "Change",
    keys: [
      ["A, B", "Insert a cell above or below"], ["D, D", "Delete"], ["Z", "Undo a deletion"], ["X, C, V", "Cut, copy, paste"],
      ["M, Y", "Make it text, make it code"],
    ],
  },
  { title: "In the editor", keys: [["Tab", "Complete"], ["Shift+Tab", "Ask the kernel about the name"], ["Ctrl+/", "Comment"], ["Ctrl+Z", "Undo"]] },
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
      if (event.shiftKey) does(() => session.runAndAdvance(selected));
      else if (isChord) does(() => session.run(selected));
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
    switch (event.key) {
      case "ArrowUp":
      case "k":
        if (target?.closest(".text[tabindex], iframe") === null || event.key === "k") does(() => session.selectBy(-1));
        break;
      case "ArrowDown":
      case "j":
        if (target?.closest(".text[tabindex], iframe") === null || event.key === "j") does(() => session.selectBy(1));
        break;
      case "a": does(() => session.insertBeside("above")); break;
      case "b": does(() => session.insertBeside("below")); break;
      case "d": if (isTwice && selected !== null) does(() => session.remove(selected)); break;
      case "x": if (selected !== null) does(() => { session.copy(selected); session.remove(selected); }); break;
      case "c": if (selected !== null) does(() => session.copy(selected)); break;
      case "v": does(() => session.paste()); break;
      case "z": does(() => session.undoRemove()); break;
      case "m": if (selected !== null) does(() => session.setKind(selected, "markdown")); break;
      case "y": if (selected !== null) does(() => session.setKind(selected, "code")); break;
      case "e": does(() => session.extend()); break;
      case "i": if (isTwice) does(() => session.interrupt()); break;
      case "0": if (isTwice) does(() => session.confirmRestart()); break;
      case "?": does(() => session.show({ kind: "help" })); break;
    }
  };
  addEventListener("keydown", listen);
  return () => removeEventListener("keydown", listen);
}
