// The timeline: expected error, labels, doubts and what was solved anew, for each track; a click goes there.

import { onceAPicture } from "./elements";
import type { Model } from "./model";

const LARGE = 0.15; // of the subject's size: a mean error of the keypoints that fills the row
const ROW = 26;
const MOST_ROWS = 5;

export class Strip {
  readonly draw = onceAPicture(() => this.paint());
  private down = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly model: Model,
    readonly go: (frame: number) => void,
  ) {
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      this.down = true;
      canvas.setPointerCapture(event.pointerId);
      this.seek(event);
    });
    canvas.addEventListener("pointermove", (event) => this.down && this.seek(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.down = false));
  }

  private seek(event: PointerEvent): void {
    const share = event.offsetX / this.canvas.clientWidth;
    const { n_frames } = this.model.info;
    this.go(Math.max(0, Math.min(n_frames - 1, Math.floor(share * n_frames))));
  }

  private paint(): void {
    const { model, canvas } = this;
    const context = canvas.getContext("2d");
    if (context === null || model.info === undefined) return;
    const rows = this.rows();
    canvas.style.height = `${rows.length * ROW + 10}px`;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(canvas);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const { n_frames } = model.info;
    const at = (frame: number): number => (frame / n_frames) * width;
    const each = width / n_frames;
    const [first, last] = model.window;
    if (first !== null && last !== null) {
      context.fillStyle = colour("--window");
      const [a, b] = [Math.min(first, last), Math.max(first, last)];
      context.fillRect(at(a), 0, Math.max(2, at(b + 1) - at(a)), height);
    }
    rows.forEach((row, n) => this.paintRow(context, row, 8 + n * ROW, at, each, colour));
    for (const doubt of model.doubts) {
      if (doubt.status !== "open") continue;
      const x = at(doubt.frame + 0.5);
      context.fillStyle = colour(doubt.kind === "doubt" ? "--doubt" : "--suggestion");
      context.beginPath();
      context.moveTo(x - 4, 0);
      context.lineTo(x + 4, 0);
      context.lineTo(x, 7);
      context.fill();
    }
    context.fillStyle = colour("--text");
    context.fillRect(at(model.frame + 0.5) - 1, 0, 2, height);
  }

  private rows(): number[] {
    const count = this.model.info.tracks.length;
    if (count <= MOST_ROWS) return [...Array(Math.max(count, 1)).keys()];
    const first = Math.max(0, Math.min(count - MOST_ROWS, this.model.track - 2));
    return [...Array(MOST_ROWS).keys()].map((n) => n + first);
  }

  private paintRow(
    context: CanvasRenderingContext2D,
    track: number,
    top: number,
    at: (frame: number) => number,
    each: number,
    colour: (name: string) => string,
  ): void {
    const { model } = this;
    const { timeline, info } = model;
    const errors = timeline.errors[track] ?? [];
    const size = info.subject ?? info.image_size[0] / 4;
    const inner = ROW - 4;
    context.fillStyle = colour(track === model.track ? "--row-now" : "--row");
    context.fillRect(0, top, at(info.n_frames), inner);
    const step = Math.max(1, Math.floor(1 / each));
    for (let frame = 0; frame < errors.length; frame += step) {
      // Where a column of the screen stands for several frames, the worst of them counts.
      let worst: number | null = -1;
      for (const error of errors.slice(frame, frame + step)) {
        if (error === null) worst = worst === -1 ? null : worst;
        else if (worst === null || error > worst) worst = error >= 0 || worst === -1 ? error : worst;
      }
      if (worst === -1) continue;
      const share = worst === null ? 0 : Math.min(1, worst / (LARGE * size));
      context.fillStyle = colour(share > 0.66 ? "--bad" : share > 0.33 ? "--doubtful" : "--good");
      const high = Math.max(2, share * (inner - 6));
      context.fillRect(at(frame), top + inner - 3 - high, Math.max(1, each * step - (each > 4 ? 1 : 0)), high);
    }
    context.fillStyle = colour("--provisional");
    for (const frame of timeline.provisional[track] ?? []) context.fillRect(at(frame), top, Math.max(1, each), 2);
    context.fillStyle = colour("--label");
    for (const frame of timeline.labels[track] ?? []) {
      const x = at(frame + 0.5);
      context.fillRect(x - 1, top, 2, inner);
      context.beginPath();
      context.arc(x, top + inner - 3, 3.5, 0, 7);
      context.fill();
    }
  }
}
