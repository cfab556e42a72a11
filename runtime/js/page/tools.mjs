/** The tools of the pad: its pen, its ground, its eraser, and what takes a stroke back. */

import { ColourChoice } from './palette.mjs';

const $ = (id) => document.getElementById(id);

export class Tools {
  #pad;
  #pen;
  #ground;

  constructor(pad) {
    this.#pad = pad;
    this.#pen = new ColourChoice($('pen'), $('pen-colours'), (token) => {
      pad.pen = token;
      this.#setEraser(false);
    });
    this.#ground = new ColourChoice($('ground'), $('ground-colours'), (token) => (pad.ground = token));
    $('widths').addEventListener('change', ({ target }) => (pad.thickness = Number(target.value)));
    $('eraser').addEventListener('click', () => this.#setEraser(!pad.erases));
    $('undo').addEventListener('click', () => pad.undo());
    $('clear').addEventListener('click', () => pad.clear());
  }

  /** For the palette of another model. */
  reset(palette) {
    this.#pen.reset(palette, this.#pad.pen);
    this.#ground.reset(palette, this.#pad.ground);
    this.#setEraser(false);
  }

  /** After every change of the picture. Buttons that would do nothing keep the focus, so they are not disabled. */
  show() {
    $('hint').hidden = !this.#pad.blank;
    $('undo').setAttribute('aria-disabled', !this.#pad.canUndo);
    $('clear').setAttribute('aria-disabled', this.#pad.blank);
  }

  #setEraser(on) {
    this.#pad.erases = on;
    $('eraser').setAttribute('aria-pressed', on);
  }
}
