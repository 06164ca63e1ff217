// Everything that can be done, each with a name, a button and a key: the help lists them from here.

export interface Action {
  id: string;
  title: string; // as the button and the help name it
  keys: string[]; // as KeyboardEvent.key, with Ctrl+, Alt+, Shift+ before it
  help?: string[]; // what the help shows in place of the keys
  run: (event?: KeyboardEvent) => void;
  hold?: boolean; // lasts while the key is down
  can?: () => boolean;
}

const NAMES: Record<string, string> = {
  ArrowLeft: "←",
  ArrowRight: "→",
  " ": "Space",
  Escape: "Esc",
};

export function inWords(keys: string): string {
  return keys
    .split("+")
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join("+");
}

// The name under which an event is looked up. Letters count by what is printed on the key, whatever Shift makes
// of them; signs count as they are.
export function nameOf(event: KeyboardEvent): string {
  const key = event.key.length === 1 && /[a-z]/i.test(event.key) ? event.key.toLowerCase() : event.key;
  const isSign = event.key.length === 1 && !/[a-z ]/i.test(event.key);
  const shift = event.shiftKey && !isSign;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shift ? "Shift+" : ""}${key}`;
}

export class Keys {
  private byKey = new Map<string, Action>();
  private held: Action | null = null;
  private heldKey = "";

  constructor(readonly actions: Action[]) {
    for (const action of actions) for (const key of action.keys) this.byKey.set(key, action);
    window.addEventListener("keydown", (event) => this.down(event));
    window.addEventListener("keyup", (event) => this.up(event.key));
    window.addEventListener("blur", () => this.up(this.heldKey));
  }

  private down(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    if (document.querySelector("dialog[open]") !== null) return;
    const gone = target.closest("dialog") !== null;
    if (!gone && target.closest("input, textarea, select") !== null) return;
    const name = nameOf(event);
    // A button that has the focus is pressed by these.
    if (!gone && (name === "Enter" || name === " ") && target.closest("button, summary, a") !== null) return;
    const action = this.byKey.get(name);
    if (action === undefined) return;
    event.preventDefault();
    if (action.hold) {
      if (event.repeat) return;
      this.held = action;
      this.heldKey = event.key;
    }
    if (action.can === undefined || action.can()) action.run(event);
  }

  private up(key: string): void {
    if (this.held !== null && key.toLowerCase() === this.heldKey.toLowerCase()) {
      const action = this.held;
      this.held = null;
      action.run();
    }
  }
}
