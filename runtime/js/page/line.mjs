/** The line between the rows that are kept and those that are drawn: dragged by its handle, or moved by keys. */

const KEYS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const ROOM = 0.28; // share of the height that a side's words take

export class Line {
  #handle;
  #stage;
  #sides;
  #changed;
  #height = 2;
  #rows = 1;

  /**
   * handle: the slider. rail: where it runs, as high as the picture; a press on it brings the handle there.
   * stage: gets --kept, the share of rows above the line. kept, drawn: say how many rows are on either side. changed: called when it was moved.
   */
  constructor({ handle, rail, stage, kept, drawn, changed }) {
    this.#handle = handle;
    this.#stage = stage;
    this.#sides = { kept, drawn };
    this.#changed = changed;
    rail.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // of selecting text
      handle.focus({ preventScroll: true, focusVisible: false });
      rail.setPointerCapture(event.pointerId);
      // The line keeps its distance to where the handle was taken.
      const box = rail.getBoundingClientRect();
      const at = box.top + (this.#rows / this.#height) * box.height;
      const grip = handle.contains(event.target) ? event.clientY - at : 0;
      const follow = ({ clientY }) => this.#move(Math.round(((clientY - grip - box.top) / box.height) * this.#height));
      const end = () => {
        rail.removeEventListener('pointermove', follow);
        rail.removeEventListener('pointerup', end);
        rail.removeEventListener('pointercancel', end);
      };
      rail.addEventListener('pointermove', follow);
      rail.addEventListener('pointerup', end);
      rail.addEventListener('pointercancel', end);
      follow(event);
    });
    handle.addEventListener('keydown', (event) => {
      const page = Math.max(1, Math.round(this.#height / 4));
      const step = { ...KEYS, PageUp: -page, PageDown: page }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.#move(this.#rows + step);
    });
  }

  /** Rows above the line, 0 .. height - 1. */
  get rows() {
    return this.#rows;
  }

  set rows(rows) {
    this.#rows = Math.min(Math.max(rows, 0), this.#height - 1);
    this.#show();
  }

  /** For a model with pictures of so many rows: half of them are kept. */
  reset(height) {
    this.#height = height;
    this.rows = Math.floor(height / 2);
  }

  #move(rows) {
    const before = this.#rows;
    this.rows = rows;
    if (this.#rows !== before) this.#changed();
  }

  #show() {
    const handle = this.#handle;
    handle.setAttribute('aria-valuemax', this.#height - 1);
    handle.setAttribute('aria-valuenow', this.#rows);
    handle.setAttribute('aria-valuetext', `${this.#rows} of ${this.#height} rows are kept`);
    const share = this.#rows / this.#height;
    this.#sides.kept.hidden = share < ROOM;
    this.#sides.drawn.hidden = share > 1 - ROOM;
    this.#sides.kept.textContent = `${this.#rows} kept`;
    this.#sides.drawn.textContent = `${this.#height - this.#rows} drawn`;
    this.#stage.style.setProperty('--kept', share);
  }
}
