// What the page knows: the session, the poses that it has fetched, where the user is, and edits on their way.

import { Problem } from "./transport";
import type { Changed, Doubt, Info, Operation, Run, State, Timeline, Transport } from "./transport";

export const COLUMNS = 7;
export const [NOTHING, PREDICTED, PLACED, GUESSED, MISSING] = [0, 1, 2, 3, 4] as const;
const CHUNK = 128;
const RETRY = 1500; // milliseconds

export interface Keypoint {
  x: number;
  y: number;
  score: number;
  error: number;
  oldX: number;
  oldY: number;
  state: number;
}

interface Patch {
  frame: number;
  track: number;
  keypoint: number;
  x: number;
  y: number;
  state: number;
}

interface Waiting {
  id: string;
  operations: Operation[];
  done: (changed: Changed | null) => void;
}

export class Model {
  info!: Info;
  timeline: Timeline = { tracks: [], errors: [], labels: [], provisional: [] };
  doubts: Doubt[] = [];
  frame = 0;
  track = 0; // position among the tracks
  keypoint = 0;
  placing = false;
  cursor: [number, number] | null = null; // in pixels of the frame
  hidden = false;
  window: [number | null, number | null] = [null, null];
  doubt: string | null = null;
  trails = false;
  loupe = true;
  follow = false;
  trouble: string | null = null; // what keeps edits from being saved
  lost: "" | "silent" | "ended" = ""; // whether the server still speaks to this page
  message = "";
  changed: () => void = () => {};
  refresh: () => void = () => {}; // panels, not only the picture
  private chunks = new Map<number, Float32Array>();
  private asked = new Map<number, number>();
  private version = 0;
  private patches = new Map<string, Patch>(); // shown before the server has them
  private timelineAsked = 0;
  private doubtsAsked = 0;
  private queue: Waiting[] = [];
  private sending = false;

  constructor(readonly transport: Transport) {}

  async load(): Promise<void> {
    this.info = await this.transport.session();
    this.chunks.clear();
    this.asked.clear();
    this.version++;
    const most = this.info.tracks.length - 1;
    this.track = Math.max(0, Math.min(this.track, most));
    this.keypoint = Math.max(0, Math.min(this.keypoint, this.names.length - 1));
    this.frame = Math.max(0, Math.min(this.frame, this.info.n_frames - 1));
    await Promise.all([this.loadTimeline(), this.loadDoubts(), this.fetchChunk(Math.floor(this.frame / CHUNK))]);
    this.refresh();
  }

  // Answers may overtake each other: the one that was asked for last counts.
  async loadTimeline(): Promise<void> {
    const asked = ++this.timelineAsked;
    const timeline = await this.transport.timeline();
    if (asked !== this.timelineAsked) return;
    this.timeline = timeline;
    this.refresh();
  }

  async loadDoubts(): Promise<void> {
    const asked = ++this.doubtsAsked;
    const doubts = await this.transport.doubts();
    if (asked !== this.doubtsAsked) return;
    this.doubts = doubts;
    this.refresh();
  }

  get names(): string[] {
    return this.info.skeleton?.names ?? [];
  }

  get trackId(): number {
    return this.info.tracks[this.track]?.id ?? 0;
  }

  trackName(position: number): string {
    const track = this.info.tracks[position];
    return track === undefined ? "" : track.name || `track ${track.id}`;
  }

  get pending(): number {
    return this.queue.length;
  }

  say(text: string): void {
    this.message = text;
    this.refresh();
  }

  // --- poses ---

  private offset(frame: number, track: number, keypoint: number): [Float32Array, number] | null {
    const chunk = this.chunks.get(Math.floor(frame / CHUNK));
    if (chunk === undefined) return null;
    const at = (((frame % CHUNK) * this.info.tracks.length + track) * this.names.length + keypoint) * COLUMNS;
    return at + COLUMNS <= chunk.length ? [chunk, at] : null;
  }

  at(frame: number, track: number, keypoint: number): Keypoint | null {
    const found = this.offset(frame, track, keypoint);
    if (found === null) return null;
    const [x, y, score, error, oldX, oldY, state] = found[0].subarray(found[1], found[1] + COLUMNS);
    return { x: x!, y: y!, score: score!, error: error!, oldX: oldX!, oldY: oldY!, state: state! };
  }

  get selected(): Keypoint | null {
    return this.at(this.frame, this.track, this.keypoint);
  }

  // Show a keypoint elsewhere at once, before the server has taken it.
  patch(frame: number, track: number, keypoint: number, x: number, y: number, state: number): void {
    const id = this.info.tracks[track]?.id ?? -1;
    this.patches.set(`${frame} ${id} ${keypoint}`, { frame, track, keypoint, x, y, state });
    this.apply(this.patches.get(`${frame} ${id} ${keypoint}`)!);
    this.changed();
  }

  private apply({ frame, track, keypoint, x, y, state }: Patch): void {
    const found = this.offset(frame, track, keypoint);
    if (found === null) return;
    const [chunk, at] = found;
    chunk[at] = x;
    chunk[at + 1] = y;
    chunk[at + 2] = chunk[at + 3] = NaN;
    chunk[at + 6] = state;
  }

  // What the server has taken is no longer shown in advance, unless something newer waits.
  private settle(operations: Operation[]): void {
    const key = (each: Operation): string => `${each["frame"]} ${each["track"]} ${each["keypoint"]}`;
    const waiting = new Set(this.queue.flatMap((each) => each.operations.map(key)));
    for (const each of operations) if (!waiting.has(key(each))) this.patches.delete(key(each));
  }

  need(frame: number): void {
    const chunk = Math.floor(frame / CHUNK);
    const beside = Math.floor((frame + (frame % CHUNK > CHUNK / 2 ? 1 : -1) * (CHUNK / 2)) / CHUNK);
    for (const each of [chunk, beside]) {
      const inside = each >= 0 && each * CHUNK < this.info.n_frames;
      if (inside && !this.chunks.has(each) && !this.asked.has(each)) void this.fetchChunk(each);
    }
  }

  private async fetchChunk(chunk: number): Promise<void> {
    if (this.names.length === 0) return;
    const version = ++this.version;
    this.asked.set(chunk, version);
    const first = chunk * CHUNK;
    const last = Math.min(first + CHUNK, this.info.n_frames) - 1;
    try {
      const block = await this.transport.poses(first, last);
      if (this.asked.get(chunk) !== version) return; // a later answer counts
      this.chunks.set(chunk, block);
      // An answer may be older than what was placed since.
      for (const patch of this.patches.values()) {
        if (Math.floor(patch.frame / CHUNK) === chunk) this.apply(patch);
      }
      this.asked.delete(chunk);
      for (const old of this.chunks.keys()) {
        if (this.chunks.size <= 24) break;
        if (Math.abs(old - Math.floor(this.frame / CHUNK)) > 2) this.chunks.delete(old);
      }
      this.refresh();
    } catch {
      this.asked.delete(chunk);
    }
  }

  async reload(frames: number[]): Promise<void> {
    const chunks = new Set(frames.map((frame) => Math.floor(frame / CHUNK)));
    await Promise.all([...chunks].filter((chunk) => this.chunks.has(chunk)).map((chunk) => this.fetchChunk(chunk)));
  }

  // --- edits ---

  // Resolves with what has changed once it lies on the server's disk; null where it was refused.
  edit(...operations: Operation[]): Promise<Changed | null> {
    return new Promise((done) => {
      this.queue.push({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, operations, done });
      this.refresh();
      void this.send();
    });
  }

  private async send(): Promise<void> {
    if (this.sending) return;
    this.sending = true;
    while (this.queue.length > 0) {
      const next = this.queue[0]!;
      try {
        const changed = await this.transport.edit(next.id, this.info.revision, next.operations);
        this.queue.shift();
        this.settle(next.operations);
        this.trouble = null;
        this.take(changed);
        if (changed.anew) await this.load();
        else await this.reload(changed.frames);
        next.done(changed);
        void this.loadTimeline();
        void this.loadDoubts();
      } catch (error) {
        const status = error instanceof Problem ? error.status : -1;
        const text = error instanceof Error ? error.message : String(error);
        if (status === 0 || status === 507 || status === 500) {
          // What is not saved is kept, and tried again.
          this.trouble = text;
          this.refresh();
          await new Promise((go) => setTimeout(go, RETRY));
          continue;
        }
        this.queue.shift();
        this.settle(next.operations);
        this.say(
          status === 409
            ? "Another page has changed the labels meanwhile. This page shows them now; the last change here was not made."
            : text,
        );
        await this.load().catch(() => {});
        next.done(null);
      }
    }
    this.sending = false;
    this.refresh();
  }

  take(state: State): void {
    const { revision, undo, redo, labelled, has_poses, has_model, save_error, run, ready } = state;
    Object.assign(this.info, { revision, undo, redo, labelled, has_poses, has_model, save_error, run, ready });
    this.refresh();
  }

  // --- what the server tells ---

  hear(event: string, values: any): void {
    this.lost = "";
    if (event === "edit") {
      const changed = values as Changed;
      if (changed.revision <= this.info.revision || this.sending) return; // it is our own
      this.take(changed);
      if (changed.anew) void this.load();
      else void this.reload(changed.frames).then(() => this.loadTimeline());
      void this.loadDoubts();
    } else if (event === "hello") {
      const behind = values.revision !== this.info.revision;
      this.take(values as State);
      if (behind && !this.sending) void this.load();
    } else if (event === "poses") {
      void this.load();
    } else if (event === "solved") {
      void this.reload(values.frames as number[]);
      void this.loadTimeline();
    } else if (event === "run") {
      this.info.run = values as Run;
      this.refresh();
    } else if (event === "state") {
      this.take(values as State);
    } else if (event === "doubts") {
      void this.loadDoubts();
    }
  }
}
