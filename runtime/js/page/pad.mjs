/** The picture as the model sees it, on which the visitor draws: mouse, touch and keys paint pixels of the palette. */

import { nearest } from './colours.mjs';
import { paint } from './canvas.mjs';

const GROUND = -1; // a pixel that shows the ground, whatever that is
const MOST_UNDONE = 100;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Widths of the pen, in pixels of a model's pictures that are so many wide: fine, medium and thick. */
function penWidths(side) {
  return [1, Math.round(side / 10), Math.round(side / 6)];
}

export class Pad {
  #canvas;
  #cursor; // shows what the pen would paint
  #changed;
  #size = { width: 1, height: 1 };
  #palette = [[255, 255, 255]];
  #tokens = Int32Array.of(GROUND);
  #source; // {image, sample} that the pixels come from, until something is drawn on them
  #undo = [];
  #last; // where the pen is down
  #at = { x: 0, y: 0 }; // where the keyboard's pen is
  #ground = 0;
  pen = 0; // token
  thickness = 1; // of the pen: 0 fine, 1 medium, 2 thick
  erases = false;

  /** changed: called after every stroke and whatever else changes the picture. */
  constructor(canvas, cursor, changed) {
    this.#canvas = canvas;
    this.#cursor = cursor;
    this.#changed = changed;
    canvas.addEventListener('pointerdown', (event) => this.#down(event));
    canvas.addEventListener('pointermove', (event) => this.#move(event));
    canvas.addEventListener('pointerleave', () => (cursor.hidden = true));
    for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => this.#up());
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('focus', () => canvas.matches(':focus-visible') && this.#showCursor(this.#at));
    canvas.addEventListener('blur', () => (cursor.hidden = true));
    addEventListener('keydown', (event) => {
      if (event.key !== 'z' || !(event.ctrlKey || event.metaKey) || event.target.matches('[type=number]')) return;
      event.preventDefault();
      this.undo();
    });
  }

  /** For another model: an empty ground, white or what is nearest, and a black pen. */
  reset(size, palette) {
    this.#size = size;
    this.#palette = palette;
    this.#ground = nearest(palette, [255, 255, 255]);
    this.pen = nearest(palette, [0, 0, 0]);
    this.#at = { x: size.width >> 1, y: size.height >> 1 };
    this.#undo = [];
    this.#set(new Int32Array(size.width * size.height).fill(GROUND));
  }

  /** Shows a picture's tokens; source: {image, sample}, what the model gets as long as nothing is drawn on it. */
  load(tokens, source) {
    this.#remember();
    this.#set(Int32Array.from(tokens), source);
    this.#changed();
  }

  clear() {
    if (this.blank) return;
    this.#remember();
    this.#set(new Int32Array(this.#tokens.length).fill(GROUND));
    this.#changed();
  }

  undo() {
    const before = this.#undo.pop();
    if (!before) return;
    this.#set(before.tokens, before.source);
    this.#changed();
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get blank() {
    return this.#tokens.every((token) => token === GROUND);
  }

  get ground() {
    return this.#ground;
  }

  set ground(token) {
    this.#ground = token;
    this.#show();
    if (this.#tokens.includes(GROUND)) this.#changed();
  }

  /** Of the sample picture that is shown as it is. */
  get sample() {
    return this.#source?.sample;
  }

  /** What the model gets. */
  get image() {
    return this.#source?.image ?? this.pixels();
  }

  /** What is shown, {width, height, data} in RGB. */
  pixels() {
    const data = new Uint8Array(3 * this.#tokens.length);
    this.#tokens.forEach((token, i) => data.set(this.#palette[token === GROUND ? this.#ground : token], 3 * i));
    return { ...this.#size, data };
  }

  #remember() {
    this.#undo.push({ tokens: this.#tokens.slice(), source: this.#source });
    if (this.#undo.length > MOST_UNDONE) this.#undo.shift();
  }

  #set(tokens, source) {
    this.#tokens = tokens;
    this.#source = source;
    this.#show();
  }

  #show() {
    paint(this.#canvas, this.pixels());
  }

  #down(event) {
    if (event.button !== 0 || this.#last) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#remember();
    this.#last = this.#place(event);
    this.#stroke(this.#last);
  }

  #move(event) {
    const place = this.#place(event);
    if (event.pointerType === 'mouse') this.#showCursor(place);
    if (!this.#last) return;
    for (const part of event.getCoalescedEvents?.() ?? []) this.#stroke(this.#place(part));
    this.#stroke(place);
  }

  #up() {
    if (!this.#last) return;
    this.#last = undefined;
    this.#changed();
  }

  #place({ clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    const { width, height } = this.#size;
    return { x: ((clientX - box.left) / box.width) * width, y: ((clientY - box.top) / box.height) * height };
  }

  get #width() {
    return penWidths(this.#size.width)[this.thickness];
  }

  /** The pixel at the upper left of the pen's. */
  #corner({ x, y }) {
    return [Math.floor(x - (this.#width - 1) / 2), Math.floor(y - (this.#width - 1) / 2)];
  }

  #stroke(to) {
    const from = this.#last;
    const steps = Math.max(1, Math.ceil(2 * Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y))));
    for (let i = 0; i <= steps; i++) {
      this.#dab({ x: from.x + ((to.x - from.x) * i) / steps, y: from.y + ((to.y - from.y) * i) / steps });
    }
    this.#last = to;
    this.#source = undefined;
    this.#show();
  }

  #dab(place) {
    const { width, height } = this.#size;
    const [left, top] = this.#corner(place);
    const side = this.#width;
    const radius = side / 2;
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const [x, y] = [left + i, top + j];
        const inside = (i + 0.5 - radius) ** 2 + (j + 0.5 - radius) ** 2 <= radius ** 2;
        if (inside && x >= 0 && x < width && y >= 0 && y < height) this.#tokens[y * width + x] = this.erases ? GROUND : this.pen;
      }
    }
  }

  #showCursor(place) {
    const [left, top] = this.#corner(place);
    const { width, height } = this.#size;
    const { style } = this.#cursor;
    [style.left, style.top] = [`${(100 * left) / width}%`, `${(100 * top) / height}%`];
    [style.width, style.height] = [`${(100 * this.#width) / width}%`, `${(100 * this.#width) / height}%`];
    this.#cursor.hidden = false;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const [{ x, y }, { width, height }] = [this.#at, this.#size];
      this.#at = {
        x: Math.min(Math.max(Math.floor(x) + arrow[0], 0), width - 1) + 0.5,
        y: Math.min(Math.max(Math.floor(y) + arrow[1], 0), height - 1) + 0.5,
      };
      if (event.shiftKey) this.#press({ x: Math.floor(x) + 0.5, y: Math.floor(y) + 0.5 });
    } else if (event.key === ' ') this.#press(this.#at);
    else if (event.key === 'Delete') this.clear();
    else return;
    event.preventDefault();
    this.#showCursor(this.#at);
  }

  /** Paints from a place to the keyboard's pen. */
  #press(from) {
    this.#remember();
    this.#last = from;
    this.#stroke(this.#at);
    this.#up();
  }
}
