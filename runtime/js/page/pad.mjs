/** The drawing pad: mouse, touch and keyboard paint on a square of light levels. */

const SIDE = 160; // pixels of the pad; the model sees it smaller
const CELL = SIDE / 16; // what an arrow key moves
const BRUSH = 7;

export class Pad {
  #context;
  #erases = false;
  #last;
  #cursor = { x: SIDE / 2, y: SIDE / 2 };

  /** changed: called after every stroke. */
  constructor(canvas, changed) {
    canvas.width = canvas.height = SIDE;
    this.canvas = canvas;
    this.#context = canvas.getContext('2d', { willReadFrequently: true });
    this.clear();
    this.changed = changed;
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = this.#place(event);
      this.#stroke(this.#last);
    });
    canvas.addEventListener('pointermove', (event) => this.#last && this.#stroke(this.#place(event)));
    for (const end of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(end, () => {
        if (this.#last) this.changed();
        this.#last = undefined;
      });
    }
    canvas.addEventListener('keydown', (event) => this.#key(event));
  }

  set erases(value) {
    this.#erases = value;
  }

  get erases() {
    return this.#erases;
  }

  clear() {
    this.#context.fillStyle = '#000';
    this.#context.fillRect(0, 0, SIDE, SIDE);
    this.changed?.();
  }

  /** Shows a picture, which then is what `image` returns. */
  show(bitmap) {
    const context = this.#context;
    context.fillStyle = '#fff';
    context.fillRect(0, 0, SIDE, SIDE);
    context.drawImage(bitmap, 0, 0, SIDE, SIDE);
  }

  /** The pixels of the pad. */
  image() {
    return this.#context.getImageData(0, 0, SIDE, SIDE);
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * SIDE, y: ((event.clientY - box.top) / box.height) * SIDE };
  }

  #stroke(to) {
    const context = this.#context;
    context.strokeStyle = this.#erases ? '#000' : '#fff';
    context.lineWidth = 2 * BRUSH;
    context.lineCap = 'round';
    context.beginPath();
    context.moveTo(this.#last.x, this.#last.y);
    context.lineTo(to.x, to.y + 0.01);
    context.stroke();
    this.#last = to;
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move) {
      const from = this.#cursor;
      this.#cursor = {
        x: Math.min(Math.max(from.x + move[0] * CELL, BRUSH), SIDE - BRUSH),
        y: Math.min(Math.max(from.y + move[1] * CELL, BRUSH), SIDE - BRUSH),
      };
      if (event.shiftKey) this.#dab(from, this.#cursor);
    } else if (event.key === ' ') {
      this.#dab(this.#cursor, this.#cursor);
    } else if (event.key === 'e') {
      this.canvas.dispatchEvent(new CustomEvent('erase'));
    } else if (event.key === 'Delete') {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
  }

  #dab(from, to) {
    this.#last = from;
    this.#stroke(to);
    this.#last = undefined;
    this.changed();
  }
}
