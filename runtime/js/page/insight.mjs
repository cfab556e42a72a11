/** What the model makes of a picture: its classes, and how much each pixel surprises it. */

import { paint } from './canvas.mjs';

const MOST_CLASSES = 6;
const STOPS = [[0, 0, 8], [92, 20, 110], [229, 92, 48], [252, 255, 164]]; // black, purple, orange, yellow

export class Insight {
  #parts;
  #notices = []; // by the number of rows that are kept

  /** parts: elements {section, classes, map, bar, scale, summary, error, unlike}. */
  constructor(parts) {
    this.#parts = parts;
    paint(parts.bar, { width: 128, height: 1, data: Uint8Array.from(Array.from({ length: 128 }, (_, i) => heat(i / 127)).flat()) });
  }

  /** There is no picture. */
  clear() {
    this.#parts.section.hidden = true;
    this.#notices = [];
    this.keep(0);
  }

  /** So many rows are kept: says so if they are unlike what the model was trained on. */
  keep(rows) {
    const { unlike } = this.#parts;
    unlike.textContent = this.#notices[rows] ?? '';
    unlike.hidden = unlike.textContent === '';
  }

  /** What is shown is of the picture before. */
  wait() {
    this.#parts.section.setAttribute('aria-busy', 'true');
  }

  /** Why there is nothing to show. */
  fail(words) {
    const { section, error } = this.#parts;
    this.show({ classes: [], notices: [] });
    section.hidden = false;
    error.textContent = words;
  }

  /** notices: what `keep` says. */
  show({ classes, score, notices }, size) {
    const parts = this.#parts;
    showClasses(parts.classes, classes);
    parts.classes.parentElement.hidden = classes.length === 0;
    parts.map.closest('figure').hidden = !score;
    if (score) this.#showSurprise(score, size);
    parts.section.hidden = classes.length === 0 && !score;
    parts.section.removeAttribute('aria-busy');
    parts.error.textContent = '';
    this.#notices = notices;
  }

  #showSurprise({ nats, natsPerToken }, { width, height }) {
    const { map, scale, summary } = this.#parts;
    const most = rounded(Math.max(...nats, 1e-3));
    const data = new Uint8Array(3 * width * height);
    nats.forEach((value, i) => data.set(heat(value / most), 3 * i));
    paint(map, { width, height, data });
    map.style.setProperty('--side', width);
    const words = `${natsPerToken.toFixed(2)} nats per pixel`;
    map.setAttribute('aria-label', `Surprise of every pixel: ${words}, at most ${Math.max(...nats).toFixed(1)}`);
    summary.textContent = words;
    scale.replaceChildren(
      ...[0, most / 2, most].map((value, i) => {
        const mark = document.createElement('span');
        mark.textContent = `${Number(value.toPrecision(2))}${i === 2 ? ' nats' : ''}`;
        return mark;
      }),
    );
  }
}

/** The likeliest classes first; values of a regression have no bar. */
function showClasses(parent, classes) {
  parent.replaceChildren(
    ...classes.slice(0, MOST_CLASSES).map(({ label, probability, value }) => {
      const row = document.createElement('li');
      const [name, bar, number] = ['span', 'i', 'span'].map((kind) => document.createElement(kind));
      name.textContent = label;
      name.title = label;
      if (probability !== undefined) bar.style.setProperty('--share', probability);
      number.textContent = probability === undefined ? value.toPrecision(6) : `${(100 * probability).toFixed(1)} %`;
      row.append(name, bar, number);
      return row;
    }),
  );
}

/** The next larger number with one digit, or 1.5, 2.5. */
function rounded(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 10].find((factor) => factor * unit >= value * (1 - 1e-9));
}

/** 0 .. 1 as a colour. */
function heat(share) {
  const place = Math.min(share, 0.9999) * (STOPS.length - 1);
  const [low, high] = [STOPS[Math.floor(place)], STOPS[Math.floor(place) + 1]];
  return low.map((value, i) => Math.round(value + (high[i] - value) * (place % 1)));
}
