/** The shelf: sample pictures that a bundle brings, cut from its sheet. */

import { imageOf } from '/js/web.mjs';

const COLUMNS = 8; // of the sheet

/** Resolves to [{name, image}], image: ImageData. Throws an Error in words. */
export async function readSheet(url, { file, names }, { width, height }) {
  const response = await fetch(new URL(encodeURIComponent(file), new URL(url, location.href))).catch(() => undefined);
  if (!response?.ok) throw new Error('The sample pictures cannot be loaded.');
  const sheet = await imageOf(await response.blob());
  const canvas = new OffscreenCanvas(sheet.width, sheet.height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.putImageData(sheet, 0, 0);
  return names
    .map((name, i) => ({ name, left: (i % COLUMNS) * width, top: Math.floor(i / COLUMNS) * height }))
    .filter(({ left, top }) => left + width <= sheet.width && top + height <= sheet.height)
    .map(({ name, left, top }) => ({ name, image: context.getImageData(left, top, width, height) }));
}

export class Shelf {
  #parent;
  #picked;
  #samples = [];

  /** picked: called with a sample. */
  constructor(parent, picked) {
    this.#parent = parent;
    this.#picked = picked;
  }

  /** Puts samples on the shelf; without any, there is no shelf. */
  fill(samples) {
    this.#samples = samples;
    this.#parent.hidden = samples.length === 0;
    this.#parent.replaceChildren(
      ...samples.map((sample) => {
        const button = document.createElement('button');
        button.type = 'button';
        button.title = sample.name;
        button.setAttribute('aria-label', sample.name);
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [sample.image.width, sample.image.height];
        canvas.getContext('2d').putImageData(sample.image, 0, 0);
        button.append(canvas);
        button.addEventListener('click', () => this.#picked(sample));
        return button;
      }),
    );
  }

  find(name) {
    return this.#samples.find((sample) => sample.name === name);
  }

  /** Marks the one that is shown; none if undefined. */
  mark(name) {
    this.#samples.forEach((sample, i) => this.#parent.children[i].setAttribute('aria-pressed', sample.name === name));
  }
}
