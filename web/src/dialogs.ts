// Windows over the page: all keys, going to a frame, exchanging over a window of frames, and the skeleton.

import { inWords } from "./actions";
import type { Action } from "./actions";
import { find, make } from "./elements";
import type { Skeleton } from "./transport";

export function open(id: string): HTMLDialogElement {
  const dialog = find<HTMLDialogElement>(id);
  if (!dialog.open) dialog.showModal();
  return dialog;
}

// Resolves with true where the dialog was confirmed.
function confirmed(dialog: HTMLDialogElement): Promise<boolean> {
  dialog.returnValue = "";
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

export function wireDialogs(): void {
  for (const dialog of document.querySelectorAll("dialog")) {
    // Browsers may leave the focus in a window that is closed.
    dialog.addEventListener("close", () => {
      if (dialog.contains(document.activeElement)) (document.activeElement as HTMLElement).blur();
    });
    // A form that checks what is typed closes its window itself.
    dialog.querySelector("form:not([data-checks])")?.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close("yes");
    });
    for (const button of dialog.querySelectorAll("[data-close]")) {
      button.addEventListener("click", () => dialog.close(""));
    }
  }
}

export function showHelp(actions: Action[]): void {
  const rows = actions
    .filter((action) => action.keys.length > 0 && action.title !== "")
    .map((action) =>
      make(
        "tr",
        {},
        make("td", {}, ...(action.help ?? action.keys).flatMap((key, n) => [...(n ? [" "] : []), make("kbd", {}, inWords(key))])),
        make("td", {}, action.title),
      ),
    );
  find("help-keys").replaceChildren(...rows);
  open("help").scrollTop = 0;
}

export async function askFrame(now: number, last: number): Promise<number | null> {
  const input = find<HTMLInputElement>("goto-frame");
  input.value = String(now);
  input.max = String(last);
  const dialog = open("goto");
  input.select();
  return (await confirmed(dialog)) ? Math.max(0, Math.min(last, Math.round(Number(input.value)) || 0)) : null;
}

export async function askName(title: string, text: string, value: string): Promise<string | null> {
  find("name-title").textContent = title;
  find("name-text").textContent = text;
  const input = find<HTMLInputElement>("name-value");
  input.value = value;
  const dialog = open("name");
  input.select();
  return (await confirmed(dialog)) ? input.value : null;
}

export async function askSure(title: string, text: string): Promise<boolean> {
  find("sure-title").textContent = title;
  find("sure-text").textContent = text;
  return confirmed(open("sure"));
}

export interface Exchange {
  first: number;
  last: number;
  choice: string;
}

export async function askExchange(
  title: string,
  first: number,
  last: number,
  most: number,
  label: string,
  choices: [string, string][],
): Promise<Exchange | null> {
  find("exchange-title").textContent = title;
  find("exchange-label").textContent = label;
  const inputs = [find<HTMLInputElement>("exchange-first"), find<HTMLInputElement>("exchange-last")];
  inputs.forEach((input, n) => {
    input.max = String(most);
    input.value = String([first, last][n]);
  });
  const select = find<HTMLSelectElement>("exchange-choice");
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
  const dialog = open("exchange");
  inputs[0]!.select();
  if (!(await confirmed(dialog))) return null;
  return { first: Number(inputs[0]!.value), last: Number(inputs[1]!.value), choice: select.value };
}

// --- the skeleton ---

function lines(text: string): string[] {
  return text
    .split(/[\n,;]/)
    .map((line) => line.trim().replace(/\s+/g, " "))
    .filter((line) => line !== "");
}

// Pairs are written "nose - tail"; a name may hold dashes itself, so every place to cut is tried.
export function readPairs(text: string, names: string[]): [number, number][] {
  return lines(text).map((line) => {
    for (let cut = line.indexOf("-"); cut >= 0; cut = line.indexOf("-", cut + 1)) {
      const a = names.indexOf(line.slice(0, cut).trim());
      const b = names.indexOf(line.slice(cut + 1).trim());
      if (a >= 0 && b >= 0 && a !== b) return [a, b];
    }
    throw new Error(`“${line}” does not name two keypoints: write one name, a dash, and another name.`);
  });
}

function writePairs(pairs: [number, number][], names: string[]): string {
  return pairs.map(([a, b]) => `${names[a]} - ${names[b]}`).join("\n");
}

// The same sides as the server finds, where names hold left and right.
export function guessPairs(names: string[]): [number, number][] {
  const other: [RegExp, (side: string) => string][] = [
    [/left|right/i, (side) => (/left/i.test(side) ? "right" : "left")],
    [/(?<![A-Za-z0-9])[lLrR](?![A-Za-z0-9])/, (side) => (/l/i.test(side) ? "r" : "l")],
    [/^[LR](?=[A-Z])/, (side) => (side === "L" ? "R" : "L")],
    [/(?<=[a-z])[LR](?=\d*$)/, (side) => (side === "L" ? "R" : "L")],
  ];
  const pairs: [number, number][] = [];
  names.forEach((name, a) => {
    for (const [pattern, swap] of other) {
      const found = pattern.exec(name);
      if (found === null) continue;
      const begin = name.slice(0, found.index);
      const end = name.slice(found.index + found[0].length);
      const b = names.findIndex((each) => each.toLowerCase() === (begin + swap(found[0]) + end).toLowerCase());
      if (b > a) pairs.push([a, b]);
      break;
    }
  });
  return pairs;
}

export async function askSkeleton(
  present: Skeleton | null,
  starts: Record<string, Skeleton>,
  fixed: boolean,
): Promise<Skeleton | null> {
  const names = find<HTMLTextAreaElement>("skeleton-names");
  const edges = find<HTMLTextAreaElement>("skeleton-edges");
  const pairs = find<HTMLTextAreaElement>("skeleton-pairs");
  const preset = find<HTMLSelectElement>("skeleton-preset");
  const problem = find("skeleton-problem");
  const dialog = find<HTMLDialogElement>("skeleton");
  let pairsTyped = false;
  const show = (skeleton: Skeleton): void => {
    names.value = skeleton.names.join("\n");
    edges.value = writePairs(skeleton.edges, skeleton.names);
    pairs.value = writePairs(skeleton.flip_pairs, skeleton.names);
    pairsTyped = true;
  };
  const read = (): Skeleton => {
    const list = lines(names.value);
    if (list.length === 0) throw new Error("Name at least one keypoint.");
    const twice = list.find((name, n) => list.indexOf(name) !== n);
    if (twice !== undefined) throw new Error(`“${twice}” is there twice: each keypoint needs a name of its own.`);
    if (fixed && list.length !== present?.names.length) {
      throw new Error("There are labels already: keypoints can be renamed, not added or taken away.");
    }
    const kind = starts[preset.value]?.name ?? present?.name ?? "animal";
    return { name: kind, names: list, edges: readPairs(edges.value, list), flip_pairs: readPairs(pairs.value, list) };
  };
  preset.replaceChildren(
    make("option", { value: "" }, "my own"),
    ...Object.entries(starts).map(([name, each]) => make("option", { value: name }, `${name} (${each.names.length})`)),
  );
  preset.disabled = fixed;
  preset.onchange = () => {
    const chosen = starts[preset.value];
    if (chosen !== undefined) show(chosen);
    problem.textContent = "";
  };
  names.oninput = () => {
    if (pairsTyped) return;
    const list = lines(names.value);
    pairs.value = writePairs(guessPairs(list), list);
  };
  pairs.oninput = () => (pairsTyped = true);
  problem.textContent = "";
  if (present !== null) show(present);
  else names.value = edges.value = pairs.value = "";
  pairsTyped = present !== null;
  return new Promise((done) => {
    const form = dialog.querySelector("form")!;
    let result: Skeleton | null = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      try {
        result = read();
        dialog.close("yes");
      } catch (error) {
        problem.textContent = (error as Error).message;
      }
    };
    dialog.addEventListener("close", () => done(result), { once: true });
    open("skeleton");
    names.focus();
  });
}
