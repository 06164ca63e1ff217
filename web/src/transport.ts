// What the page asks of the server. Another way to reach a server (a notebook's) implements the same interface.

export interface Skeleton {
  name: string;
  names: string[];
  edges: [number, number][];
  flip_pairs: [number, number][];
}

export interface Run {
  state: "idle" | "running" | "stopping" | "done" | "cancelled" | "failed";
  stage?: string;
  done?: number;
  total?: number;
  left?: number | null;
  said?: string;
  command?: string;
  note?: string;
  revision?: number;
}

export interface State {
  revision: number;
  undo: string | null;
  redo: string | null;
  labelled: number[];
  has_poses: boolean;
  has_model: boolean;
  save_error: string | null;
  run: Run;
  ready: string | null;
}

export interface Info extends State {
  video: string;
  version: string;
  n_frames: number;
  fps: number;
  image_size: [number, number];
  shown_size: [number, number];
  skeleton: Skeleton | null;
  flip_order: number[];
  tracks: { id: number; name: string }[];
  subject: number | null;
  folder: string;
}

export interface Changed extends State {
  id: string;
  text: string;
  anew: boolean;
  frames: number[];
}

export interface Timeline {
  tracks: number[];
  errors: (number | null)[][];
  labels: number[][];
  provisional: number[][];
}

export type DoubtStatus = "open" | "done" | "skipped";

export interface Doubt {
  id: string;
  kind: "doubt" | "suggestion";
  frame: number;
  track: number | null;
  keypoints: number[];
  reasons: string[];
  severity: number;
  status: DoubtStatus;
  box: [number, number, number, number] | null;
}

export type Operation = Record<string, unknown> & { op: string };

// An answer that says why the server did not do what it was asked for; status 0: it did not answer at all.
export class Problem extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text);
  }
}

export interface Transport {
  enter(token: string): Promise<void>;
  session(): Promise<Info>;
  skeletons(): Promise<Record<string, Skeleton>>;
  poses(first: number, last: number): Promise<Float32Array>;
  timeline(): Promise<Timeline>;
  doubts(): Promise<Doubt[]>;
  setStatus(id: string, status: DoubtStatus): Promise<Doubt[]>;
  edit(id: string, base: number, operations: Operation[]): Promise<Changed>;
  run(effort: string, how: { model: boolean; extend: boolean; further: boolean; learn: boolean }): Promise<Run>;
  cancel(): Promise<void>;
  suggest(): Promise<void>;
  frame(index: number, version: string, full: boolean): string;
  part(index: number, version: string, box: [number, number, number, number]): string;
  listen(heard: (event: string, values: any) => void, lost: (gone: boolean) => void): void;
}

export class Http implements Transport {
  async enter(token: string): Promise<void> {
    await this.post("/api/enter", { token });
  }

  session(): Promise<Info> {
    return this.json("/api/session");
  }

  skeletons(): Promise<Record<string, Skeleton>> {
    return this.json("/api/skeletons");
  }

  async poses(first: number, last: number): Promise<Float32Array> {
    const answer = await this.ask(`/api/poses?from=${first}&to=${last}`);
    return new Float32Array(await answer.arrayBuffer());
  }

  timeline(): Promise<Timeline> {
    return this.json("/api/timeline");
  }

  doubts(): Promise<Doubt[]> {
    return this.json("/api/doubts");
  }

  setStatus(id: string, status: DoubtStatus): Promise<Doubt[]> {
    return this.post("/api/doubts", { id, status });
  }

  edit(id: string, base: number, operations: Operation[]): Promise<Changed> {
    return this.post("/api/edits", { id, base, operations });
  }

  run(effort: string, how: { model: boolean; extend: boolean; further: boolean; learn: boolean }): Promise<Run> {
    return this.post("/api/run", { effort, ...how });
  }

  async cancel(): Promise<void> {
    await this.post("/api/cancel", {});
  }

  async suggest(): Promise<void> {
    await this.post("/api/suggest", {});
  }

  frame(index: number, version: string, full: boolean): string {
    return `/frame/${index}.jpg?v=${version}${full ? "&full" : ""}`;
  }

  part(index: number, version: string, box: [number, number, number, number]): string {
    return `/frame/${index}.jpg?v=${version}&crop=${box.join(",")}`;
  }

  listen(heard: (event: string, values: any) => void, lost: (gone: boolean) => void): void {
    const source = new EventSource("/api/events");
    for (const event of ["hello", "edit", "poses", "solved", "run", "state", "doubts"]) {
      source.addEventListener(event, (message) => heard(event, JSON.parse((message as MessageEvent).data)));
    }
    source.onerror = () => lost(source.readyState === EventSource.CLOSED);
  }

  private async ask(path: string, options?: RequestInit): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(path, { cache: "no-store", ...options });
    } catch {
      throw new Problem(0, "posewarper label does not answer");
    }
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      throw new Problem(answer.status, String(told.problem ?? answer.statusText));
    }
    return answer;
  }

  private async json<T>(path: string): Promise<T> {
    return (await this.ask(path)).json() as Promise<T>;
  }

  private async post<T>(path: string, values: unknown): Promise<T> {
    const headers = { "Content-Type": "application/json" };
    const answer = await this.ask(path, { method: "POST", headers, body: JSON.stringify(values) });
    return answer.json() as Promise<T>;
  }
}
