// The picture: the frame, the poses over it, and what the mouse does there.

import { onceAPicture } from "./elements";
import { GUESSED, MISSING, NOTHING, PLACED, PREDICTED } from "./model";
import type { Model } from "./model";

const KEPT_FRAMES = 48;
const AHEAD = 4; // frames fetched before they are needed, in the direction of the last step
const REACH = 14; // pixels of the screen within which a keypoint is meant
const TRAIL = 10; // frames
const LOUPE = 4; // times
// Mirror sides differ in colour, and in brightness too; all show on light and on dark pictures.
const SIDES = { left: "#45b0ff", right: "#ff9a2e", middle: "#f4e13c" };

export type Side = keyof typeof SIDES;

export function sideOf(names: string[], flipOrder: number[], keypoint: number): Side {
  const other = flipOrder[keypoint] ?? keypoint;
  if (other === keypoint) return "middle";
  const name = names[keypoint] ?? "";
  const left = /left|(^|[^A-Za-z0-9])l([^A-Za-z0-9]|$)/i.test(name) || /^L(?=[A-Z])|[a-z]L\d*$/.test(name);
  const right = /right|(^|[^A-Za-z0-9])r([^A-Za-z0-9]|$)/i.test(name) || /^R(?=[A-Z])|[a-z]R\d*$/.test(name);
  return left === right ? (keypoint < other ? "left" : "right") : left ? "left" : "right";
}

export interface Gestures {
  select(track: number, keypoint: number): void;
  place(x: number, y: number): void;
  drop(x: number, y: number): void;
  cycle(): void;
  hint(): string | null;
}

export class View {
  scale = 1; // pixels of the screen for one of the frame
  left = 0;
  top = 0;
  shown = -1; // the frame whose picture is on the canvas
  private fitted = true;
  private images = new Map<string, HTMLImageElement>();
  private wanted = "";
  readonly draw = onceAPicture(() => this.paint());
  private dragging: { kind: "keypoint" | "pan"; x: number; y: number; moved: boolean } | null = null;
  private pointers = new Map<number, [number, number]>();
  private last = 0;
  private full = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly model: Model,
    readonly gestures: Gestures,
  ) {
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => this.draw());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  private get size(): [number, number] {
    const [height, width] = this.model.info.image_size;
    return [width, height];
  }

  resize(): void {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    if (this.fitted) this.fit();
    this.draw();
  }

  fit(): void {
    if (this.model.info === undefined) return;
    const [width, height] = this.size;
    const { clientWidth, clientHeight } = this.canvas;
    this.scale = Math.min(clientWidth / width, clientHeight / height) || 1;
    this.left = (clientWidth - width * this.scale) / 2;
    this.top = (clientHeight - height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  zoom(factor: number, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2): void {
    const wanted = Math.min(64, Math.max(0.02, this.scale * factor));
    this.left = x - ((x - this.left) * wanted) / this.scale;
    this.top = y - ((y - this.top) * wanted) / this.scale;
    this.scale = wanted;
    this.fitted = false;
    this.draw();
  }

  // Bring the selected track to the middle, large.
  zoomToSubject(): boolean {
    const model = this.model;
    const xs: number[] = [];
    const ys: number[] = [];
    for (let k = 0; k < model.names.length; k++) {
      const point = model.at(model.frame, model.track, k);
      if (point !== null && Number.isFinite(point.x)) {
        xs.push(point.x);
        ys.push(point.y);
      }
    }
    if (xs.length === 0) return false;
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const side = Math.max(x1 - x0, y1 - y0, 24) * 1.35;
    const { clientWidth, clientHeight } = this.canvas;
    this.scale = Math.min(clientWidth, clientHeight) / side;
    this.left = clientWidth / 2 - ((x0 + x1) / 2) * this.scale;
    this.top = clientHeight / 2 - ((y0 + y1) / 2) * this.scale;
    this.fitted = false;
    this.draw();
    return true;
  }

  middle(): [number, number] {
    return this.toFrame(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
  }

  // The centre of the first pixel is 0, its left edge -0.5.
  toFrame(x: number, y: number): [number, number] {
    return [(x - this.left) / this.scale - 0.5, (y - this.top) / this.scale - 0.5];
  }

  private toScreen(x: number, y: number): [number, number] {
    return [(x + 0.5) * this.scale + this.left, (y + 0.5) * this.scale + this.top];
  }

  // --- frames ---

  private request(frame: number, full: boolean): HTMLImageElement {
    const { transport, info } = this.model;
    const address = transport.frame(frame, info.version, full);
    let image = this.images.get(address);
    if (image !== undefined) {
      this.images.delete(address);
    } else {
      image = new Image();
      image.decoding = "async";
      image.src = address;
    }
    this.images.set(address, image);
    for (const old of this.images.keys()) {
      if (this.images.size <= KEPT_FRAMES) break;
      if (old !== this.wanted) this.images.delete(old);
    }
    return image;
  }

  // Bring the picture of the present frame; poses are drawn over the picture that is there.
  bring(): void {
    const { frame, info } = this.model;
    const [, width] = info.shown_size;
    const ratio = window.devicePixelRatio || 1;
    this.full = info.image_size[1] > width && this.scale * ratio > (1.2 * width) / info.image_size[1];
    const image = this.request(frame, this.full);
    this.wanted = image.src;
    const show = (): void => {
      if (this.model.frame !== frame) return;
      this.shown = frame;
      if (this.model.follow) this.zoomToSubject();
      this.draw();
    };
    if (image.complete && image.naturalWidth > 0) show();
    else {
      image.onload = show;
      image.onerror = () => {
        this.images.delete(image.src);
        for (const [key, value] of this.images) if (value === image) this.images.delete(key);
        if (this.model.frame === frame) this.model.say(`Frame ${frame} cannot be read: has the video moved?`);
      };
    }
    const step = Math.sign(frame - this.last) || 1;
    this.last = frame;
    for (let n = 1; n <= AHEAD; n++) {
      const next = frame + n * step;
      if (next >= 0 && next < info.n_frames) this.request(next, this.full);
    }
  }

  private picture(frame: number): HTMLImageElement | null {
    const { transport, info } = this.model;
    for (const full of [this.full, !this.full]) {
      const image = this.images.get(transport.frame(frame, info.version, full));
      if (image !== undefined && image.complete && image.naturalWidth > 0) return image;
    }
    return null;
  }

  // --- the mouse ---

  private nearest(x: number, y: number): [number, number] | null {
    const { model } = this;
    let best: [number, number] | null = null;
    let closest = REACH;
    for (let i = 0; i < model.info.tracks.length; i++) {
      for (let k = 0; k < model.names.length; k++) {
        const point = model.at(model.frame, i, k);
        if (point === null || !Number.isFinite(point.x)) continue;
        const [px, py] = this.toScreen(point.x, point.y);
        // Of two in one place the selected one is meant.
        const mine = i === model.track ? (k === model.keypoint ? 4 : 2) : 0;
        const away = Math.hypot(px - x, py - y) - mine;
        if (away < closest) {
          closest = away;
          best = [i, k];
        }
      }
    }
    return best;
  }

  private down(event: PointerEvent): void {
    const { offsetX: x, offsetY: y } = event;
    this.pointers.set(event.pointerId, [x, y]);
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.model.cursor = this.toFrame(x, y);
    if (this.pointers.size > 1) {
      this.dragging = { kind: "pan", x, y, moved: true };
      return;
    }
    const near = this.model.hidden ? null : this.nearest(x, y);
    if (event.button === 2) {
      if (near !== null) {
        this.gestures.select(...near);
        this.gestures.cycle();
      }
    } else if (event.button === 0 && this.model.placing && this.shown === this.model.frame) {
      this.gestures.place(...this.toFrame(x, y));
    } else if (event.button === 0 && near !== null && this.shown === this.model.frame) {
      this.gestures.select(...near);
      this.dragging = { kind: "keypoint", x, y, moved: false };
    } else {
      this.dragging = { kind: "pan", x, y, moved: false };
    }
    event.preventDefault();
  }

  private move(event: PointerEvent): void {
    const { offsetX: x, offsetY: y } = event;
    const before = this.pointers.get(event.pointerId);
    if (this.pointers.size === 2 && before !== undefined) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)![1];
      const factor = Math.hypot(x - other[0], y - other[1]) / Math.hypot(before[0] - other[0], before[1] - other[1]);
      this.pointers.set(event.pointerId, [x, y]);
      if (Number.isFinite(factor) && factor > 0) this.zoom(factor, (x + other[0]) / 2, (y + other[1]) / 2);
      return;
    }
    this.pointers.has(event.pointerId) && this.pointers.set(event.pointerId, [x, y]);
    this.model.cursor = this.toFrame(x, y);
    const drag = this.dragging;
    if (drag !== null) {
      if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 3) return;
      drag.moved = true;
      if (drag.kind === "pan") {
        this.left += x - drag.x;
        this.top += y - drag.y;
        [drag.x, drag.y] = [x, y];
        this.fitted = false;
      } else {
        const { model } = this;
        const state = model.selected?.state === GUESSED ? GUESSED : PLACED;
        model.patch(model.frame, model.track, model.keypoint, ...this.toFrame(x, y), state);
      }
    }
    this.draw();
  }

  private up(event: PointerEvent): void {
    this.pointers.delete(event.pointerId);
    const drag = this.dragging;
    this.dragging = null;
    if (drag?.kind === "keypoint" && drag.moved) {
      this.gestures.drop(...this.toFrame(event.offsetX, event.offsetY));
    }
    this.draw();
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
    this.bring();
  }

  // --- drawing ---

  private paint(): void {
    const context = this.canvas.getContext("2d");
    const { model } = this;
    if (context === null || model.info === undefined) return;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    if (this.shown < 0) return;
    const [width, height] = this.size;
    const image = this.picture(this.shown);
    if (image !== null) {
      context.imageSmoothingEnabled = this.scale < 3;
      context.drawImage(image, this.left, this.top, width * this.scale, height * this.scale);
    }
    if (!model.hidden) {
      const tracks = model.info.tracks.map((_, n) => n).filter((n) => n !== model.track);
      for (const track of tracks) this.paintTrack(context, track, 0.55);
      if (model.info.tracks.length > 0) this.paintTrack(context, model.track, 1);
    }
    this.paintCursor(context);
    if (model.loupe && (model.placing || this.dragging?.kind === "keypoint")) this.paintLoupe(context, image);
    const hint = this.gestures.hint();
    if (hint !== null) this.paintHint(context, hint);
  }

  private paintTrack(context: CanvasRenderingContext2D, track: number, alpha: number): void {
    const { model, shown } = this;
    const { names } = model;
    const edges = model.info.skeleton?.edges ?? [];
    const points = names.map((_, k) => model.at(shown, track, k));
    if (points[0] === null) {
      model.need(shown);
      return;
    }
    const there = points.map((point) => point !== null && Number.isFinite(point.x) && point.state !== MISSING);
    const places = points.map((point) => (point === null ? ([0, 0] as [number, number]) : this.toScreen(point.x, point.y)));
    context.globalAlpha = alpha * 0.45;
    context.setLineDash([4, 3]);
    context.lineWidth = 1.5;
    context.strokeStyle = "#ffffff";
    points.forEach((point, k) => {
      // The old path, until the labels are propagated again.
      if (point === null || !Number.isFinite(point.oldX) || !there[k]) return;
      const [x, y] = this.toScreen(point.oldX, point.oldY);
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(...places[k]!);
      context.moveTo(x + 4, y);
      context.arc(x, y, 4, 0, 7);
      context.stroke();
    });
    context.setLineDash([]);
    context.globalAlpha = alpha * 0.8;
    for (const [a, b] of edges) {
      if (!there[a] || !there[b]) continue;
      const sides = [a, b].map((k) => sideOf(names, model.info.flip_order, k));
      const side = sides[0] === sides[1] ? sides[0]! : sides.includes("middle") ? sides.find((s) => s !== "middle")! : "middle";
      this.line(context, places[a]!, places[b]!, SIDES[side]);
    }
    if (model.trails && track === model.track) this.paintTrail(context, track);
    context.globalAlpha = alpha;
    points.forEach((point, k) => {
      if (!there[k] || point === null || point.state === NOTHING) return;
      const chosen = track === model.track && k === model.keypoint;
      const colour = SIDES[sideOf(names, model.info.flip_order, k)];
      const ring = point.error * this.scale;
      if (point.state === PREDICTED && Number.isFinite(ring) && track === model.track && (chosen || ring > 9)) {
        // How far off it may be; that of the chosen keypoint stands out.
        context.setLineDash([5, 4]);
        if (chosen) this.circle(context, places[k]!, Math.max(ring, 6), colour, 2);
        else {
          context.globalAlpha = alpha * 0.6;
          context.lineWidth = 1;
          context.strokeStyle = colour;
          context.beginPath();
          context.arc(...places[k]!, ring, 0, 7);
          context.stroke();
          context.globalAlpha = alpha;
        }
        context.setLineDash([]);
      }
      this.mark(context, places[k]!, point.state, colour, chosen ? 6 : 4.5);
      if (chosen) this.circle(context, places[k]!, 11, "#ffffff", 2);
    });
    context.globalAlpha = 1;
  }

  private line(context: CanvasRenderingContext2D, a: [number, number], b: [number, number], colour: string): void {
    for (const [width, style] of [
      [4, "rgba(0,0,0,0.45)"],
      [2, colour],
    ] as const) {
      context.beginPath();
      context.moveTo(...a);
      context.lineTo(...b);
      context.lineWidth = width;
      context.strokeStyle = style;
      context.stroke();
    }
  }

  private circle(context: CanvasRenderingContext2D, [x, y]: [number, number], radius: number, colour: string, width: number): void {
    for (const [wide, style] of [
      [width + 2, "rgba(0,0,0,0.6)"],
      [width, colour],
    ] as const) {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.lineWidth = wide;
      context.strokeStyle = style;
      context.stroke();
    }
  }

  // Filled where labelled, hollow where predicted, crossed where hidden.
  private mark(context: CanvasRenderingContext2D, [x, y]: [number, number], state: number, colour: string, radius: number): void {
    if (state === PLACED) {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fillStyle = colour;
      context.fill();
      context.lineWidth = 1.5;
      context.strokeStyle = "#000000";
      context.stroke();
      return;
    }
    this.circle(context, [x, y], radius, colour, 2);
    if (state === GUESSED) {
      const reach = radius + 2;
      this.line(context, [x - reach, y - reach], [x + reach, y + reach], colour);
      this.line(context, [x - reach, y + reach], [x + reach, y - reach], colour);
    }
  }

  private paintTrail(context: CanvasRenderingContext2D, track: number): void {
    const { model, shown } = this;
    for (let k = 0; k < model.names.length; k++) {
      context.beginPath();
      context.strokeStyle = SIDES[sideOf(model.names, model.info.flip_order, k)];
      context.lineWidth = k === model.keypoint ? 2 : 1;
      let down = false;
      for (let frame = Math.max(0, shown - TRAIL); frame <= shown; frame++) {
        const point = model.at(frame, track, k);
        if (point !== null && Number.isFinite(point.x)) {
          const place = this.toScreen(point.x, point.y);
          if (down) context.lineTo(...place);
          else context.moveTo(...place);
          down = true;
        } else down = false;
      }
      context.stroke();
    }
  }

  private paintCursor(context: CanvasRenderingContext2D): void {
    const { cursor, placing } = this.model;
    if (!placing || cursor === null) return;
    const [x, y] = this.toScreen(...cursor);
    const { clientWidth, clientHeight } = this.canvas;
    for (const [width, style] of [
      [3, "rgba(0,0,0,0.5)"],
      [1, "#ffffff"],
    ] as const) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.beginPath();
      for (const [fromX, fromY, toX, toY] of [
        [0, y, x - 6, y],
        [x + 6, y, clientWidth, y],
        [x, 0, x, y - 6],
        [x, y + 6, x, clientHeight],
      ] as const) {
        context.moveTo(fromX, fromY);
        context.lineTo(toX, toY);
      }
      context.stroke();
    }
  }

  private paintLoupe(context: CanvasRenderingContext2D, image: HTMLImageElement | null): void {
    const { cursor } = this.model;
    if (image === null || cursor === null) return;
    const side = Math.min(140, this.canvas.clientWidth / 3);
    const [x, y] = this.toScreen(...cursor);
    const left = x < side + 40 && y < side + 40 ? this.canvas.clientWidth - side - 8 : 8;
    const [width] = this.size;
    const ratio = image.naturalWidth / width;
    const part = side / (LOUPE * Math.max(1, this.scale));
    context.save();
    context.beginPath();
    context.rect(left, 8, side, side);
    context.fillStyle = "#000000";
    context.fill();
    context.clip();
    context.imageSmoothingEnabled = false;
    const from = [(cursor[0] + 0.5 - part / 2) * ratio, (cursor[1] + 0.5 - part / 2) * ratio] as const;
    context.drawImage(image, ...from, part * ratio, part * ratio, left, 8, side, side);
    context.restore();
    const middle = [left + side / 2, 8 + side / 2] as const;
    this.line(context, [middle[0] - 8, middle[1]], [middle[0] + 8, middle[1]], "#ffffff");
    this.line(context, [middle[0], middle[1] - 8], [middle[0], middle[1] + 8], "#ffffff");
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    context.strokeRect(left, 8, side, side);
  }

  private paintHint(context: CanvasRenderingContext2D, text: string): void {
    context.font = "600 14px system-ui, sans-serif";
    const width = context.measureText(text).width;
    const x = this.canvas.clientWidth / 2;
    const y = this.canvas.clientHeight - 18;
    context.fillStyle = "rgba(0,0,0,0.72)";
    context.beginPath();
    context.roundRect(x - width / 2 - 10, y - 15, width + 20, 24, 6);
    context.fill();
    context.fillStyle = "#ffffff";
    context.textAlign = "center";
    context.fillText(text, x, y + 2);
    context.textAlign = "start";
  }
}
