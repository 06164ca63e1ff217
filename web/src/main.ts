// The page of posewarper label: wires the model, the picture, the panels and the keys together.

import { Keys, inWords } from "./actions";
import type { Action } from "./actions";
import { askExchange, askFrame, askName, askSkeleton, askSure, showHelp, wireDialogs } from "./dialogs";
import { fill, find, make, releaseFocus, span, write } from "./elements";
import { GUESSED, MISSING, Model, NOTHING, PLACED, PREDICTED } from "./model";
import type { Keypoint } from "./model";
import { Strip } from "./strip";
import { Http, Problem } from "./transport";
import type { Doubt, DoubtStatus, Operation } from "./transport";
import { View, sideOf } from "./view";

const SETTLE = 250; // milliseconds after the last nudge until it is saved
const STATES = ["visible", "hidden", "absent", "unseen"] as const;
const IN_WORDS: Record<number, [string, string]> = {
  [NOTHING]: ["·", "no place"],
  [PREDICTED]: ["○", "predicted"],
  [PLACED]: ["●", "labelled"],
  [GUESSED]: ["⊗", "labelled, hidden"],
  [MISSING]: ["∅", "absent"],
};

const model = new Model(new Http());
const view = new View(find<HTMLCanvasElement>("picture"), model, {
  select: (track, keypoint) => select(track, keypoint),
  place: (x, y) => void place(x, y),
  drop: (x, y) => void model.edit(placed(x, y)),
  cycle: () => cycle(),
  hint: () => hint(),
});
const strip = new Strip(find<HTMLCanvasElement>("timeline"), model, (frame) => go(frame));

// --- where the user is ---

function go(frame: number): void {
  settle();
  const last = model.info.n_frames - 1;
  // Who has placed all keypoints of a frame begins with the first one on the next.
  const complete = model.placing && model.names.every((_, k) => isLabelled(model.at(model.frame, model.track, k)));
  model.frame = Math.max(0, Math.min(last, frame));
  model.need(model.frame);
  if (complete) firstOpen();
  view.bring();
  refresh();
}

function step(frames: number): void {
  go(model.frame + frames);
}

function select(track: number, keypoint: number): void {
  settle();
  model.track = track;
  model.keypoint = keypoint;
  refresh();
}

function turn(by: number): void {
  const count = model.names.length;
  if (count > 0) select(model.track, (model.keypoint + by + count) % count);
}

function toLabel(direction: 1 | -1): void {
  const frames = model.info.labelled.filter((frame) => (frame - model.frame) * direction > 0);
  if (frames.length > 0) go(direction > 0 ? Math.min(...frames) : Math.max(...frames));
  else model.say(direction > 0 ? "No frame after this one is labelled." : "No frame before this one is labelled.");
}

// The middle of the widest gap between labelled frames: where a label helps without knowing more.
function toGap(): void {
  const last = model.info.n_frames - 1;
  const labelled = model.info.labelled;
  if (labelled.length === 0) return go(Math.floor(last / 2));
  const gaps: [number, number][] = labelled.slice(1).map((frame, n) => [labelled[n]!, frame]);
  const wide = gaps.map(([a, b]): [number, number] => [b - a, Math.floor((a + b) / 2)]);
  wide.push([2 * labelled[0]!, 0], [2 * (last - labelled.at(-1)!), last]);
  wide.sort((a, b) => b[0] - a[0]);
  go(wide[0]![1]);
}

function openDoubts(): Doubt[] {
  const chosen = visibleDoubts();
  const open = chosen.filter((doubt) => doubt.status === "open");
  return open.length > 0 ? open : chosen;
}

function toDoubt(direction: 1 | -1): void {
  const all = visibleDoubts();
  const open = openDoubts();
  if (open.length === 0) return model.say("Nothing is in the list of frames to look at.");
  const now = all.findIndex((doubt) => doubt.id === model.doubt);
  const order = direction > 0 ? open : [...open].reverse();
  const next = order.find((doubt) => (all.indexOf(doubt) - now) * direction > 0) ?? order[0]!;
  showDoubt(next);
}

function showDoubt(doubt: Doubt): void {
  model.doubt = doubt.id;
  const track = model.info.tracks.findIndex((each) => each.id === doubt.track);
  if (track >= 0) model.track = track;
  go(doubt.frame);
  if (doubt.keypoints.length > 0) model.keypoint = doubt.keypoints[0]!;
}

async function suggest(): Promise<void> {
  await report(() => model.transport.suggest());
  model.say("Looking for frames that are worth a label ...");
}

async function tick(status: DoubtStatus): Promise<void> {
  const doubt = model.doubts.find((each) => each.id === model.doubt);
  if (doubt === undefined) return model.say("Go to one of the frames to look at first (Space).");
  await report(async () => {
    model.doubts = await model.transport.setStatus(doubt.id, status);
  });
  if (status !== "open") toDoubt(1);
  refresh();
}

// --- labels ---

function placed(x: number, y: number): Operation {
  const state = model.selected?.state === GUESSED ? "hidden" : "visible";
  const where = { track: model.trackId, frame: model.frame, keypoint: model.keypoint };
  return { op: "place", ...where, xy: [x, y], state };
}

async function place(x: number, y: number): Promise<void> {
  if (model.names.length === 0) return;
  const operation = placed(x, y);
  model.patch(model.frame, model.track, model.keypoint, x, y, PLACED);
  advance();
  await model.edit(operation);
}

function isLabelled(point: Keypoint | null): boolean {
  return point !== null && point.state >= PLACED;
}

// Go on to the next keypoint of this frame that nobody has labelled.
function advance(): void {
  const count = model.names.length;
  for (let n = 1; n < count; n++) {
    const next = (model.keypoint + n) % count;
    if (!isLabelled(model.at(model.frame, model.track, next))) {
      model.keypoint = next;
      return refresh();
    }
  }
  model.say("All keypoints of this frame are labelled. Shift+Alt+→ goes to the middle of the widest gap.");
}

let nudged: { frame: number; track: number; keypoint: number; x: number; y: number; timer: number } | null = null;

function nudge(x: number, y: number, event?: KeyboardEvent): void {
  const reach = event?.shiftKey ? 10 : 1;
  const here = model.selected;
  if (model.placing && !isLabelled(here)) {
    const cursor = model.cursor ?? view.middle();
    model.cursor = [cursor[0] + x * reach, cursor[1] + y * reach];
    return view.draw();
  }
  if (here === null || !Number.isFinite(here.x)) {
    return model.say("This keypoint has no place here: N begins to place keypoints.");
  }
  const state = here.state === GUESSED ? GUESSED : PLACED;
  const to = { x: here.x + x * reach, y: here.y + y * reach };
  if (nudged !== null) {
    to.x = nudged.x + x * reach;
    to.y = nudged.y + y * reach;
    clearTimeout(nudged.timer);
  }
  model.patch(model.frame, model.track, model.keypoint, to.x, to.y, state);
  const where = { frame: model.frame, track: model.track, keypoint: model.keypoint };
  nudged = { ...where, ...to, timer: setTimeout(settle, SETTLE) };
  refresh();
}

// Save what was nudged.
function settle(): void {
  if (nudged === null) return;
  clearTimeout(nudged.timer);
  const { x, y } = nudged;
  nudged = null;
  void model.edit(placed(x, y));
}

function setState(state: (typeof STATES)[number]): void {
  settle();
  void model.edit({ op: "state", track: model.trackId, frame: model.frame, keypoint: model.keypoint, state });
}

function cycle(): void {
  const state = model.selected?.state ?? NOTHING;
  if (state === PLACED) setState("hidden");
  else if (state === GUESSED) setState("absent");
  else if (state === MISSING) setState("unseen");
  else if (state === PREDICTED) setState("visible");
  else setState("absent");
}

function accept(): void {
  settle();
  if (model.placing) {
    const cursor = model.cursor ?? view.middle();
    model.cursor = cursor;
    void place(...cursor);
  } else void model.edit({ op: "accept", track: model.trackId, frame: model.frame });
}

async function addTrack(): Promise<void> {
  if (model.names.length === 0) return void editSkeleton();
  const name = await askName("Add an instance", "A new track, for another person or animal. Its name, if it has one:", "");
  if (name === null) return;
  if ((await model.edit({ op: "add", name })) === null) return;
  model.track = model.info.tracks.length - 1;
  model.keypoint = 0;
  setPlacing(true);
}

function deleteInstance(): void {
  settle();
  void model.edit({ op: "delete", track: model.trackId, frame: model.frame });
}

async function removeTrack(): Promise<void> {
  const name = model.trackName(model.track);
  const text = `All labels of ${name} go away, on all frames. Undo brings them back.`;
  if (await askSure(`Remove ${name}?`, text)) await model.edit({ op: "remove_track", track: model.trackId });
}

async function renameTrack(): Promise<void> {
  const now = model.info.tracks[model.track]?.name ?? "";
  const name = await askName("Name this track", "What this person or animal is called:", now);
  if (name !== null) await model.edit({ op: "rename", track: model.trackId, name });
}

function windowNow(): [number, number] {
  const [first, last] = model.window;
  return [first ?? model.frame, last ?? Math.max(first ?? model.frame, model.frame)];
}

function setWindow(end: 0 | 1): void {
  model.window[end] = model.frame;
  const other = model.window[1 - end];
  if (other === null || other === undefined) model.window[1 - end] = model.frame;
  model.say(`Window: frames ${Math.min(...windowNow())} to ${Math.max(...windowNow())}.`);
}

async function exchangeSides(): Promise<void> {
  settle();
  const pairs = model.info.skeleton?.flip_pairs ?? [];
  if (pairs.length === 0) return model.say("No keypoint has a mirror image: the skeleton has no mirror pairs.");
  const name = model.names[model.keypoint]!;
  const own = pairs.find((pair) => pair.includes(model.keypoint));
  const choices: [string, string][] = [["", "all mirror pairs"]];
  if (own !== undefined) choices.push([String(model.keypoint), `only ${own.map((k) => model.names[k]).join(" and ")}`]);
  const [first, last] = windowNow();
  const most = model.info.n_frames - 1;
  const title = `Exchange left and right of ${model.trackName(model.track)}`;
  const asked = await askExchange(title, first, last, most, `Pairs (${name} is chosen)`, choices);
  if (asked === null) return;
  const keypoint = asked.choice === "" ? {} : { keypoint: Number(asked.choice) };
  const window = { first: asked.first, last: asked.last };
  await model.edit({ op: "exchange_sides", track: model.trackId, ...window, ...keypoint });
  model.window = [null, null];
  refresh();
}

async function exchangeTracks(): Promise<void> {
  settle();
  const others = model.info.tracks
    .map((track, n): [string, string] => [String(track.id), model.trackName(n)])
    .filter((_, n) => n !== model.track);
  if (others.length === 0) return model.say("There is one track only.");
  const [first, last] = windowNow();
  const most = model.info.n_frames - 1;
  const title = `Exchange ${model.trackName(model.track)} with another track`;
  const asked = await askExchange(title, first, last, most, "With", others);
  if (asked === null) return;
  const window = { first: asked.first, last: asked.last };
  await model.edit({ op: "exchange_tracks", track: model.trackId, other: Number(asked.choice), ...window });
  model.window = [null, null];
  refresh();
}

async function editSkeleton(): Promise<void> {
  const starts = await model.transport.skeletons();
  const present = model.info.skeleton;
  const wanted = await askSkeleton(present, starts, model.info.labelled.length > 0);
  if (wanted === null) return;
  const changed = await model.edit({ op: "skeleton", skeleton: wanted });
  if (changed !== null && present === null) setPlacing(true);
}

function setPlacing(on: boolean): void {
  model.placing = on;
  if (on && model.cursor === null) model.cursor = view.middle();
  if (on && isLabelled(model.selected)) firstOpen();
  refresh();
}

function firstOpen(): void {
  const open = model.names.findIndex((_, k) => !isLabelled(model.at(model.frame, model.track, k)));
  if (open >= 0) model.keypoint = open;
}

function takeBack(op: "undo" | "redo"): void {
  settle();
  void model.edit({ op });
}

// --- runs ---

async function report(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    model.say(error instanceof Problem || error instanceof Error ? error.message : String(error));
  }
}

async function propagate(): Promise<void> {
  settle();
  await report(async () => {
    const effort = find<HTMLSelectElement>("effort").value;
    const ticked = (id: string): boolean => find<HTMLInputElement>(id).checked;
    const how = { extend: ticked("extend"), further: ticked("further") };
    const again = ticked("again") && model.info.has_model;
    const learn = again && effort !== "fast" && ticked("learn");
    model.info.run = await model.transport.run(effort, { ...how, model: again, learn });
  });
  refresh();
}

async function cancel(): Promise<void> {
  await report(() => model.transport.cancel());
}

const running = (): boolean => model.info.run.state === "running" || model.info.run.state === "stopping";

// --- all that can be done ---

const actions: Action[] = [
  { id: "back", title: "Previous frame", keys: ["ArrowLeft"], run: () => step(-1) },
  { id: "forward", title: "Next frame", keys: ["ArrowRight"], run: () => step(1) },
  { id: "back10", title: "10 frames back", keys: ["Ctrl+ArrowLeft"], run: () => step(-10) },
  { id: "forward10", title: "10 frames on", keys: ["Ctrl+ArrowRight"], run: () => step(10) },
  { id: "back100", title: "100 frames back", keys: ["Ctrl+Shift+ArrowLeft"], run: () => step(-100) },
  { id: "forward100", title: "100 frames on", keys: ["Ctrl+Shift+ArrowRight"], run: () => step(100) },
  { id: "goto", title: "Go to a frame", keys: ["Ctrl+j"], run: () => void askFrame(model.frame, model.info.n_frames - 1).then((frame) => frame !== null && go(frame)) },
  { id: "previous-label", title: "Previous label", keys: ["Alt+ArrowLeft"], run: () => toLabel(-1) },
  { id: "next-label", title: "Next label", keys: ["Alt+ArrowRight"], run: () => toLabel(1) },
  { id: "gap", title: "Middle of the widest gap between labels", keys: ["Alt+Shift+ArrowRight"], run: toGap },
  { id: "next-doubt", title: "Next doubt", keys: [" "], run: () => toDoubt(1) },
  { id: "previous-doubt", title: "Previous doubt", keys: ["Shift+ "], run: () => toDoubt(-1) },
  { id: "done-doubt", title: "Tick this doubt off", keys: ["k"], run: () => void tick("done") },
  { id: "skip-doubt", title: "Skip this doubt", keys: ["x"], run: () => void tick("skipped") },
  { id: "suggest", title: "Suggest frames to label", keys: ["g"], run: () => void suggest() },
  { id: "previous-keypoint", title: "Previous keypoint", keys: [","], run: () => turn(-1) },
  { id: "next-keypoint", title: "Next keypoint", keys: ["."], run: () => turn(1) },
  { id: "place", title: "Place keypoints, one after the other", keys: ["n"], run: () => setPlacing(!model.placing) },
  { id: "stop", title: "Stop placing", keys: ["Escape"], run: () => setPlacing(false) },
  { id: "up", title: "Move the keypoint up (with Shift 10 pixels)", keys: ["w", "Shift+w"], run: (event) => nudge(0, -1, event) },
  { id: "left", title: "Move it left", keys: ["a", "Shift+a"], run: (event) => nudge(-1, 0, event) },
  { id: "down", title: "Move it down", keys: ["s", "Shift+s"], run: (event) => nudge(0, 1, event) },
  { id: "right", title: "Move it right", keys: ["d", "Shift+d"], run: (event) => nudge(1, 0, event) },
  { id: "accept", title: "Accept the instance as it is shown; while placing: place at the cross", keys: ["Enter"], run: accept },
  { id: "state", title: "Next state: visible, hidden, absent, not looked at (or right click)", keys: ["v"], run: cycle },
  { id: "add", title: "Add an instance", keys: ["i"], run: () => void addTrack() },
  { id: "delete", title: "The instance is not there on this frame", keys: ["Delete"], run: deleteInstance },
  { id: "forget", title: "Forget the labels of the instance on this frame", keys: ["Backspace"], run: () => void model.edit({ op: "forget", track: model.trackId, frame: model.frame }) },
  { id: "window-first", title: "Window for exchanges begins here", keys: ["["], run: () => setWindow(0) },
  { id: "window-last", title: "Window for exchanges ends here", keys: ["]"], run: () => setWindow(1) },
  { id: "sides", title: "Exchange left and right over a window", keys: ["f"], run: () => void exchangeSides() },
  { id: "tracks", title: "Exchange two tracks over a window", keys: ["t"], run: () => void exchangeTracks() },
  { id: "undo", title: "Undo", keys: ["Ctrl+z"], run: () => takeBack("undo"), can: () => model.info.undo !== null },
  { id: "redo", title: "Redo", keys: ["Ctrl+Shift+z", "Ctrl+y"], run: () => takeBack("redo"), can: () => model.info.redo !== null },
  { id: "zoom", title: "Zoom to the instance, and follow it", keys: ["z"], run: () => follow() },
  { id: "whole", title: "Show the whole frame", keys: ["0"], run: () => whole() },
  { id: "larger", title: "Larger", keys: ["+", "="], run: () => (view.zoom(1.25), view.bring()) },
  { id: "smaller", title: "Smaller", keys: ["-"], run: () => (view.zoom(0.8), view.bring()) },
  { id: "hide", title: "Hide the poses while the key is held", keys: ["h"], hold: true, run: () => ((model.hidden = !model.hidden), refresh()) },
  { id: "trails", title: "Trails of the last frames", keys: ["r"], run: () => ((model.trails = !model.trails), refresh()) },
  { id: "loupe", title: "Loupe while placing and dragging", keys: ["l"], run: () => ((model.loupe = !model.loupe), refresh()) },
  { id: "propagate", title: "Propagate the labels", keys: ["Ctrl+Enter"], run: () => void propagate(), can: () => !running() },
  { id: "cancel", title: "Cancel the run", keys: [], run: () => void cancel(), can: running },
  { id: "skeleton-edit", title: "Keypoints, edges and mirror pairs", keys: [], run: () => void editSkeleton() },
  { id: "help-open", title: "All keys", keys: ["?"], run: () => showHelp(actions) },
];
for (let n = 1; n <= 9; n++) {
  const run = (): void => {
    if (n <= model.info.tracks.length) select(n - 1, model.keypoint);
  };
  const told = n === 1 ? { title: "Track of the list", help: ["1", "...", "9"] } : { title: "" };
  actions.push({ id: `track-${n}`, ...told, keys: [String(n)], run });
}

function follow(): void {
  model.follow = !model.follow;
  if (model.follow && !view.zoomToSubject()) {
    model.follow = false;
    model.say("There is no pose to zoom to.");
  } else if (!model.follow) view.fit();
  view.bring();
  refresh();
}

function whole(): void {
  model.follow = false;
  view.fit();
  refresh();
}

// --- panels ---

function hint(): string | null {
  if (model.names.length === 0) return null;
  if (model.placing) return `Click: ${model.names[model.keypoint]}`;
  return null;
}

function visibleDoubts(): Doubt[] {
  const kind = find<HTMLSelectElement>("doubt-kind").value;
  const status = find<HTMLSelectElement>("doubt-status").value;
  const words = find<HTMLInputElement>("doubt-words").value.toLowerCase().split(/\s+/).filter(Boolean);
  return model.doubts.filter((doubt) => {
    if (status !== "all" && doubt.status !== status) return false;
    if (kind !== "all" && doubt.kind !== kind) return false;
    const text = `${describeDoubt(doubt)} ${doubt.reasons.join(" ")}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function describeDoubt(doubt: Doubt): string {
  const track = model.info.tracks.findIndex((each) => each.id === doubt.track);
  const names = doubt.keypoints.slice(0, 3).map((k) => model.names[k] ?? "");
  const parts = [doubt.kind === "suggestion" ? "label" : "", `frame ${doubt.frame}`].filter(Boolean).join(" ");
  const whose = track < 0 || model.info.tracks.length < 2 ? "" : `, ${model.trackName(track)}`;
  return `${parts}${whose}${names.length > 0 ? `: ${names.join(", ")}` : ""}`;
}

function showKeypoints(): void {
  const points = model.names.map((_, k) => model.at(model.frame, model.track, k));
  const rows = points.map((point, k) => {
    const [sign, said] = IN_WORDS[point?.state ?? NOTHING]!;
    const error = point !== null && point.state === PREDICTED && Number.isFinite(point.error) ? point.error : null;
    return { k, sign, said, error: error === null ? "" : `±${error.toFixed(error < 10 ? 1 : 0)}` };
  });
  const key = JSON.stringify([rows, model.keypoint, model.names, model.info.flip_order]);
  fill(find("keypoints"), key, () =>
    rows.map(({ k, sign, said, error }) => {
      const name = model.names[k]!;
      const side = sideOf(model.names, model.info.flip_order, k);
      const label = `${name}, ${said}${error === "" ? "" : `, expected error ${error.slice(1)} pixels`}`;
      const button = make(
        "button",
        {
          type: "button",
          class: `keypoint ${side}`,
          "aria-pressed": k === model.keypoint ? "true" : "false",
          "aria-label": label,
          title: label,
          "data-name": name,
          click: (event) => {
            select(model.track, k);
            releaseFocus(event);
          },
        },
        make("span", { class: "sign" }, sign),
        make("span", { class: "name" }, name),
        make("span", { class: "error" }, error),
      );
      return make("li", {}, button);
    }),
  );
  const chosen = find("keypoints").children[model.keypoint] as HTMLElement | undefined;
  if (chosen !== undefined) {
    const list = find("keypoints");
    const [top, bottom] = [chosen.offsetTop - list.offsetTop, chosen.offsetTop - list.offsetTop + chosen.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }
}

function showTracks(): void {
  const select = find<HTMLSelectElement>("track");
  const names = model.info.tracks.map((_, n) => model.trackName(n));
  fill(select, JSON.stringify(names), () =>
    names.map((name, n) => make("option", { value: String(n) }, n < 9 ? `${n + 1}: ${name}` : name)),
  );
  select.value = String(model.track);
}

function showDoubts(): void {
  const chosen = visibleDoubts();
  const count = model.doubts.filter((doubt) => doubt.status === "open").length;
  write(find("doubt-count"), model.doubts.length === 0 ? "" : `${count} open of ${model.doubts.length}`);
  const key = JSON.stringify([chosen, model.doubt, model.info.version, model.names]);
  fill(find("doubt-list"), key, () =>
    chosen.map((doubt) => {
      const text = describeDoubt(doubt);
      const parts: Node[] = [];
      if (doubt.box !== null) {
        const src = model.transport.part(doubt.frame, model.info.version, doubt.box);
        parts.push(make("img", { src, alt: "", loading: "lazy", width: 56, height: 56 }));
      }
      const status = doubt.status === "open" ? "" : ` (${doubt.status})`;
      parts.push(
        make("span", { class: "reason" }, make("strong", {}, text + status), make("br"), doubt.reasons[0] ?? ""),
      );
      const button = make(
        "button",
        {
          type: "button",
          class: `doubt ${doubt.status}`,
          "aria-pressed": doubt.id === model.doubt ? "true" : "false",
          "data-name": doubt.id,
          title: doubt.reasons.join("\n"),
          click: (event) => {
            showDoubt(doubt);
            releaseFocus(event);
          },
        },
        ...parts,
      );
      return make("li", {}, button);
    }),
  );
  const empty = model.doubts.length === 0;
  find("doubt-empty").hidden = !empty;
  write(
    find("doubt-empty"),
    model.info.has_poses ? "Nothing looks doubtful." : "Frames to label, and after Propagate those to check, are listed here.",
  );
}

function showRun(): void {
  const { run } = model.info;
  const busy = running();
  find<HTMLButtonElement>("do-propagate").disabled = busy || model.info.labelled.length === 0;
  find("do-cancel").hidden = !busy;
  find("again-row").hidden = !model.info.has_model;
  const trains = find<HTMLSelectElement>("effort").value !== "fast";
  const again = model.info.has_model && find<HTMLInputElement>("again").checked;
  find("learn-row").hidden = !trains || !again;
  find("further-row").hidden = !trains || (again && !find<HTMLInputElement>("learn").checked);
  const bar = find<HTMLProgressElement>("run-bar");
  bar.hidden = !busy;
  if (run.total) {
    bar.max = run.total;
    bar.value = run.done ?? 0;
  } else bar.removeAttribute("value");
  const left = run.left == null ? "" : `, about ${span(run.left)} left`;
  const count = run.total ? ` ${run.done} of ${run.total}` : "";
  const said: Record<string, string> = {
    idle: model.info.has_poses ? "Poses of the last run are shown." : "",
    running: `${run.stage}${count}${left}`,
    stopping: "stopping ...",
    done: "Done: poses.json, report.html and overlay.mp4 are written.",
    cancelled: "Cancelled. What was done is kept; Propagate goes on there.",
    failed: run.said ?? "It failed.",
  };
  write(find("run-text"), said[run.state] ?? "");
  find("run-text").classList.toggle("failed", run.state === "failed");
  const words = run.command ?? "";
  find("run-command-row").hidden = words === "";
  write(find("run-command"), words);
  const provisional = model.timeline.provisional.some((frames) => frames.length > 0);
  find("provisional").hidden = !provisional || busy;
  write(find("ready"), model.info.ready ?? "");
}

function showState(): void {
  const { info } = model;
  write(find("clip"), info.video);
  const input = find("place-now");
  write(input, `frame ${model.frame} of ${info.n_frames - 1}`);
  const lost = {
    "": "",
    silent: "posewarper label does not answer. What was saved is on disk; this page goes on when it is back.",
    ended: "posewarper label was started anew: open the address that it prints.",
  }[model.lost];
  const trouble = lost !== "" && model.trouble === null
    ? lost
    : model.trouble !== null
      ? `Not saved: ${model.trouble}. What you did is kept here, and tried again.`
      : info.save_error !== null
        ? `Edits are saved, but labels.json cannot be written: ${info.save_error}`
        : "";
  write(find("trouble"), trouble);
  find("trouble").hidden = trouble === "";
  write(find("saved"), trouble !== "" ? "not saved" : model.pending > 0 || nudged !== null ? "saving ..." : "saved");
  write(find("message"), model.message);
  for (const action of actions) {
    const button = document.getElementById(`do-${action.id}`) as HTMLButtonElement | null;
    if (button !== null && action.can !== undefined && action.id !== "propagate") button.disabled = !action.can();
  }
  for (const [id, what] of [
    ["undo", info.undo],
    ["redo", info.redo],
  ] as const) {
    const button = find(`do-${id}`);
    button.title = what === null ? `Nothing to ${id}` : `${id[0]!.toUpperCase()}${id.slice(1)}: ${what}`;
  }
  const pressed: Record<string, boolean> = {
    place: model.placing,
    zoom: model.follow,
    trails: model.trails,
    loupe: model.loupe,
    hide: model.hidden,
  };
  for (const [id, on] of Object.entries(pressed)) {
    document.getElementById(`do-${id}`)?.setAttribute("aria-pressed", String(on));
  }
  find("begin").hidden = model.names.length > 0;
  find("picture").classList.toggle("placing", model.placing);
}

let telling = 0;

// What screen readers are told, once the user has come to rest.
function tellSoon(): void {
  clearTimeout(telling);
  telling = setTimeout(() => {
    const point = model.selected;
    const name = model.names[model.keypoint];
    const parts = [`frame ${model.frame}`];
    if (name !== undefined) {
      parts.push(name, IN_WORDS[point?.state ?? NOTHING]![1]);
      if (point !== null && point.state === PREDICTED && Number.isFinite(point.error)) {
        parts.push(`expected error ${point.error.toFixed(1)} pixels`);
      }
    }
    write(find("told"), parts.join(", "));
  }, 300);
}

let refreshing = false;

function refresh(): void {
  if (refreshing || model.info === undefined) return;
  refreshing = true;
  requestAnimationFrame(() => {
    refreshing = false;
    showState();
    showTracks();
    showKeypoints();
    showDoubts();
    showRun();
    strip.draw();
    view.draw();
    tellSoon();
    const where = `#frame=${model.frame}`;
    if (location.hash !== where) history.replaceState(null, "", where);
  });
}

// --- the start ---

function wireButtons(): void {
  for (const action of actions) {
    const button = document.getElementById(`do-${action.id}`);
    if (button === null) continue;
    const keys = action.keys[0] === undefined ? "" : ` (${inWords(action.keys[0])})`;
    button.title = action.title + keys;
    if (button.getAttribute("aria-label") === null && button.textContent!.length < 3) {
      button.setAttribute("aria-label", action.title);
    }
    button.addEventListener("click", (event) => {
      if (action.can === undefined || action.can()) action.run();
      releaseFocus(event);
    });
  }
  for (const id of ["do-skeleton-begin", "do-skeleton-edit"]) {
    if (id !== "do-skeleton-edit") find(id).addEventListener("click", () => void editSkeleton());
  }
  find("do-rename").addEventListener("click", () => void renameTrack());
  find("do-remove").addEventListener("click", () => void removeTrack());
  for (const state of STATES) find(`do-${state}`).addEventListener("click", (event) => (setState(state), releaseFocus(event)));
  const track = find<HTMLSelectElement>("track");
  track.addEventListener("change", () => {
    select(Number(track.value), model.keypoint);
    track.blur();
  });
  for (const id of ["doubt-kind", "doubt-status", "doubt-words", "effort", "again", "learn"]) find(id).addEventListener("input", () => refresh());
  find("do-copy").addEventListener("click", (event) => {
    void navigator.clipboard?.writeText(model.info.run.command ?? "").then(() => model.say("Copied."));
    releaseFocus(event);
  });
}

async function start(): Promise<void> {
  // The token, the frame to begin on, or both, with & in between.
  const parts = location.hash.slice(1).split("&");
  const frame = parts.map((part) => /^frame=(\d+)$/.exec(part)).find((found) => found !== null);
  const token = parts.find((part) => part !== "" && !part.startsWith("frame="));
  wireDialogs();
  wireButtons();
  model.changed = () => view.draw();
  model.refresh = refresh;
  try {
    if (token !== undefined) {
      history.replaceState(null, "", location.pathname);
      // A page that has been here before has the cookie already.
      await model.transport.enter(token).catch((error) => {
        if (!(error instanceof Problem) || error.status !== 401) throw error;
      });
    }
    await model.load();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    find("closed").hidden = false;
    write(find("closed-text"), `${text[0]!.toUpperCase()}${text.slice(1)}.`);
    return;
  }
  find("page").hidden = false;
  new Keys(actions);
  model.transport.listen(
    (event, values) => {
      model.hear(event, values);
      if (event === "poses" || event === "hello") view.bring();
    },
    (gone) => {
      model.lost = gone ? "ended" : "silent";
      refresh();
    },
  );
  window.addEventListener("beforeunload", (event) => {
    settle();
    if (model.pending > 0) event.preventDefault();
  });
  view.resize();
  view.fit();
  go(frame === undefined ? (model.info.labelled[0] ?? 0) : Number(frame[1]));
  if (model.names.length > 0 && model.info.labelled.length === 0 && !model.info.has_poses) setPlacing(true);
  document.documentElement.dataset["ready"] = "yes";
}

void start();
