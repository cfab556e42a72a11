/** The completions: shown while they are drawn, marked when they are of another picture, and saved. */

import { paint, pngOf, savedScale } from './canvas.mjs';
import { fileName, save } from './save.mjs';

const NEXT = '#ff5a36'; // the pixel that is drawn next

export class Results {
  #parts;
  #gifOf;
  #failed;
  #canvases = [];
  #run; // what is shown: {size, kept, palette, title}
  #tokens; // once they are finished

  /**
   * parts: elements {section, list, note, gif, again, steps}; again: draws others; steps: what stands there before. gifOf: resolves to the bytes of the film of some completions.
   * failed: called with an Error if saving fails.
   */
  constructor(parts, gifOf, failed) {
    this.#parts = parts;
    this.#gifOf = gifOf;
    this.#failed = failed;
    parts.gif.addEventListener('click', () => this.#saveGif(this.#tokens, 'all'));
  }

  /**
   * Begins with what all completions have in common.
   *
   * @param {{n: number, pixels: {width: number, height: number, data: Uint8Array}, rows: number, palette: number[][],
   *     title: string, words: string}} run rows: that are kept; title: begins the names of files; words: how it is drawn
   */
  begin({ n, pixels, rows, palette, title, words }) {
    const { width, height } = pixels;
    this.#run = { size: { width, height }, kept: rows * width, palette, title };
    this.#tokens = undefined;
    const { section, list, note, gif, again, steps } = this.#parts;
    section.hidden = false;
    steps.hidden = true;
    section.classList.remove('stale');
    note.textContent = words;
    gif.hidden = again.hidden = true;
    list.style.setProperty('--side', width);
    this.#canvases = Array.from({ length: n }, (_, i) => this.#canvas(pixels, rows, i));
    list.replaceChildren(
      ...this.#canvases.map((canvas) => {
        const item = document.createElement('li');
        item.append(canvas);
        return item;
      }),
    );
  }

  /** One more pixel of each; the next one is shown bright. */
  step(position, tokens) {
    this.#canvases.forEach((canvas, i) => {
      this.#fill(canvas, position, `rgb(${this.#run.palette[tokens[i]].join(' ')})`);
      this.#fill(canvas, position + 1, NEXT);
    });
  }

  /** They are finished, and can be saved. */
  finish(tokens) {
    this.#tokens = tokens;
    this.#parts.gif.hidden = tokens.length === 1;
    this.#parts.again.hidden = false;
    this.#canvases.forEach((canvas, i) => {
      canvas.dataset.tokens = tokens[i].join(' ');
      canvas.parentElement.append(this.#saving(canvas, i));
    });
  }

  /** The picture or the line is another one now. */
  outdate() {
    const { section, note } = this.#parts;
    if (section.hidden || section.classList.contains('stale')) return;
    section.classList.add('stale');
    note.textContent = 'The picture or the line has changed since. Complete draws anew.';
  }

  clear() {
    this.#parts.section.hidden = true;
    this.#parts.steps.hidden = false;
    this.#parts.list.replaceChildren();
    this.#canvases = [];
  }

  #canvas(pixels, rows, i) {
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', `Completion ${i + 1}`);
    paint(canvas, pixels);
    canvas.getContext('2d').clearRect(0, rows, pixels.width, pixels.height);
    return canvas;
  }

  #fill(canvas, position, colour) {
    const { width } = this.#run.size;
    const context = canvas.getContext('2d');
    context.fillStyle = colour;
    context.fillRect(position % width, Math.floor(position / width), 1, 1);
  }

  #saving(canvas, i) {
    const { size, title } = this.#run;
    const group = document.createElement('div');
    group.className = 'saving';
    const button = (text, label, action) => {
      const made = document.createElement('button');
      made.type = 'button';
      made.textContent = text;
      made.setAttribute('aria-label', `${label} of completion ${i + 1}`);
      made.title = label;
      made.addEventListener('click', () => action().catch(this.#failed));
      return made;
    };
    const png = async (scale, ...more) => save(await pngOf(canvas, scale), `${fileName(title, i + 1, ...more)}.png`);
    const own = `${size.width}×${size.height}`;
    group.append(
      button('PNG', 'Save a large PNG', () => png(savedScale(size))),
      button(own, `Save a PNG in ${own} pixels`, () => png(1, 'small')),
      button('GIF', 'Save a GIF of the drawing', () => this.#saveGif([this.#tokens[i]], i + 1)),
    );
    return group;
  }

  async #saveGif(tokens, name) {
    const { title, ...run } = this.#run;
    try {
      const bytes = await this.#gifOf({ ...run, tokens });
      save(new Blob([bytes], { type: 'image/gif' }), `${fileName(title, name)}.gif`);
    } catch (error) {
      this.#failed(error);
    }
  }
}
