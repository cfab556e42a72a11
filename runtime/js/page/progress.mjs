/** How far the drawing is: a bar, the time that is left, and how long it took. */

export class Progress {
  #bar;
  #left;
  #total = 0;
  #asked = 0; // when the drawing was asked for
  #began; // {time, position} of the first step

  constructor(bar, left) {
    this.#bar = bar;
    this.#left = left;
  }

  /** total: pixels of a picture. */
  begin(total) {
    this.#total = total;
    this.#asked = performance.now();
    this.#began = undefined;
    this.#bar.removeAttribute('value'); // the picture is read first, for nobody knows how long
    this.#bar.hidden = false;
  }

  /** A position was drawn. Returns whether it is the first one. */
  step(position) {
    const first = this.#began === undefined;
    this.#began ??= { time: performance.now(), position };
    const done = position + 1 - this.#began.position;
    const all = this.#total - this.#began.position;
    this.#bar.value = done / all;
    const left = ((performance.now() - this.#began.time) / 1000 / done) * (all - done);
    this.#left.textContent = done > 4 && left > 1 ? `about ${Math.ceil(left)} s left` : '';
    return first;
  }

  end() {
    this.#bar.hidden = true;
    this.#left.textContent = '';
  }

  /** Since the drawing was asked for. */
  get seconds() {
    return (performance.now() - this.#asked) / 1000;
  }
}
