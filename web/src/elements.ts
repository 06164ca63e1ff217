// Small helpers to make and find elements.

export function find<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element ${id}`);
  return found as T;
}

// Returns what asks for a paint, of which there is at most one between two pictures of the screen.
export function onceAPicture(paint: () => void): () => void {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  };
}

type Values = Record<string, string | number | boolean | ((event: Event) => void) | null>;

export function make(tag: string, values: Values = {}, ...children: (Node | string)[]): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

// Set the text only where it changes, so that screen readers are not told twice.
export function write(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

// Keep the children as they are where nothing has changed: the focus stays where it is.
export function fill(element: HTMLElement, key: string, build: () => Node[]): void {
  if (element.dataset["key"] === key) return;
  const focused = document.activeElement;
  const name = focused !== null && element.contains(focused) ? (focused as HTMLElement).dataset["name"] : undefined;
  element.dataset["key"] = key;
  element.replaceChildren(...build());
  if (name !== undefined) element.querySelector<HTMLElement>(`[data-name="${CSS.escape(name)}"]`)?.focus();
}

// After a click of the mouse keys are for the page again, not for the button.
export function releaseFocus(event: Event): void {
  if ((event as MouseEvent).detail > 0 && document.querySelector("dialog[open]") === null) {
    (document.activeElement as HTMLElement | null)?.blur();
  }
}

export function span(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
  return whole >= 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole} s`;
}
