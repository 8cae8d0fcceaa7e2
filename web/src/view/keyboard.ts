// Any frame can take the keyboard by a script of its own, and what somebody types would be said to it. No browser forbids it; but it can be seen.

/** What somebody was typing in when it lost the keyboard. */
let left: { element: HTMLElement; at: number } | null = null;
let lastKey = { isTab: false, at: -Infinity };

/** Events of one change of focus come at once. */
const AT_ONCE = 50;
/** How long after a key somebody is still typing, so that a pointer that rests on a frame has not clicked there. */
const TYPING = 300;

/** Follows who has the keyboard, from the page's beginning on. */
export function followKeyboard(): void {
  addEventListener("focusout", ({ target }) => {
    left = target instanceof HTMLElement && target.matches("input, textarea, [contenteditable='true']") ? { element: target, at: performance.now() } : null;
  }, true);
  addEventListener("keydown", ({ key }) => { lastKey = { isTab: key === "Tab", at: performance.now() }; }, true);
}

/** Says what somebody was typing in when a frame takes the keyboard, and neither pointer nor Tab has led there. */
export function watchKeyboard(frame: () => HTMLIFrameElement | null, onTaken: (from: HTMLElement) => void): () => void {
  const look = (): void => {
    const element = frame();
    if (element === null || document.activeElement !== element || left === null || performance.now() - left.at > AT_ONCE) return;
    const isTyping = performance.now() - lastKey.at < TYPING;
    const isWanted = isTyping ? lastKey.isTab : element.matches(":hover");
    if (!isWanted) onTaken(left.element);
  };
  // The document names the frame only after the event.
  const listen = (): void => { setTimeout(look); };
  addEventListener("blur", listen);
  return () => removeEventListener("blur", listen);
}
