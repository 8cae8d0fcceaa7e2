// The icons, drawn here so that nothing is loaded for them.

import type { JSX } from "preact";

const PATHS = {
  play: "M5 3.5v9l7.5-4.5z",
  stop: "M4 4h8v8H4z",
  restart: "M12.5 8a4.5 4.5 0 1 1-1.4-3.3M12.5 2.5v2.7H9.8",
  undo: "M3 6.5h6.5a3.5 3.5 0 0 1 0 7H7M6 3.5l-3 3 3 3",
  bookmark: "M4.5 2.5h7v11L8 10.5l-3.5 3z",
  plus: "M8 3.5v9M3.5 8h9",
  up: "M8 13V3.5M4 7.5l4-4 4 4",
  down: "M8 3v9.5M4 8.5l4 4 4-4",
  pencil: "M3 13l.6-2.8L10.8 3l2.2 2.2-7.2 7.2L3 13zM9.3 4.5l2.2 2.2",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.5 8.5h6l.5-8.5M6.8 7v3.5M9.2 7v3.5",
  files: "M2.5 4.5v8h11v-7H8L6.5 3.5h-4z",
  variables: "M6 3C4 3 5 7 3 8c2 1 1 5 3 5M10 3c2 0 1 4 3 5-2 1-1 5-3 5",
  close: "M4 4l8 8M12 4l-8 8",
  download: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  upload: "M8 11V3M4.5 6 8 2.5 11.5 6M3 13.5h10",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  expand: "M9.5 2.5h4v4M6.5 13.5h-4v-4M13.5 2.5 9 7M2.5 13.5 7 9",
  file: "M4 2.5h5l3 3v8H4zM9 2.5v3h3",
  folder: "M2.5 4.5v8h11v-7H8L6.5 3.5h-4z",
  back: "M10 3 5 8l5 5",
  keyboard: "M2 4.5h12v7H2zM4.5 7h.01M7 7h.01M9.5 7h.01M12 7h.01M5 9.5h6",
  runAll: "M3 3.5v9l5.5-4.5zM8.5 3.5v9L14 8z",
} as const;

export type IconName = keyof typeof PATHS;

const SOLID: readonly IconName[] = ["play", "stop", "runAll"];

export function Icon({ name }: { name: IconName }): JSX.Element {
  const solid = SOLID.includes(name);
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" fill={solid ? "currentColor" : "none"} stroke={solid ? "none" : "currentColor"}
      stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface ButtonProps {
  icon?: IconName;
  label: string;
  onClick: () => void;
  /** Shows the label beside the icon. */
  isNamed?: boolean;
  keys?: string;
  isDisabled?: boolean;
  isPressed?: boolean;
  class?: string;
}

export function Button({ icon, label, onClick, isNamed, keys, isDisabled, isPressed, class: extra }: ButtonProps): JSX.Element {
  return (
    <button type="button" class={`button ${isNamed === true ? "named" : ""} ${extra ?? ""}`} title={keys === undefined ? label : `${label} (${keys})`}
      aria-label={label} {...(isPressed === undefined ? {} : { "aria-pressed": isPressed })} disabled={isDisabled ?? false}
      onClick={(event) => { event.stopPropagation(); onClick(); }}>
      {icon !== undefined && <Icon name={icon} />}
      {(isNamed === true || icon === undefined) && <span>{label}</span>}
    </button>
  );
}
