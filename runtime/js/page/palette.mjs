/** A button that shows a colour, and opens those of the model's palette to choose from. */

import { fromHex, hexOf, nameOf, nearest, offered } from './colours.mjs';

export class ColourChoice {
  #button;
  #popover;
  #palette = [];
  #chosen;
  #label;

  /** button: opens `popover`. chosen: called with the token of the colour. */
  constructor(button, popover, chosen) {
    this.#button = button;
    this.#popover = popover;
    this.#chosen = chosen;
    this.#label = button.textContent.trim();
    popover.addEventListener('toggle', ({ newState }) => {
      if (newState === 'open') (popover.querySelector('input:checked') ?? popover.querySelector('input')).focus();
    });
  }

  /** Offers the colours of a palette. token: the one to begin with. */
  reset(palette, token) {
    this.#palette = palette;
    const swatches = offered(palette).map((index) => this.#swatch(index));
    this.#popover.querySelector('.swatches').replaceChildren(...swatches, this.#any());
    this.show(token);
  }

  show(token) {
    const colour = this.#palette[token];
    this.#button.querySelector('.chip').style.backgroundColor = hexOf(colour);
    this.#button.setAttribute('aria-label', `${this.#label}: ${nameOf(colour)}`);
    this.#popover.querySelector('[type=color]').value = hexOf(colour);
    for (const radio of this.#popover.querySelectorAll('[type=radio]')) radio.checked = Number(radio.value) === token;
  }

  #swatch(index) {
    const colour = this.#palette[index];
    const radio = document.createElement('input');
    radio.type = 'radio';
    radio.name = this.#popover.id;
    radio.value = index;
    radio.style.backgroundColor = hexOf(colour);
    radio.setAttribute('aria-label', nameOf(colour));
    radio.title = nameOf(colour);
    radio.addEventListener('change', () => this.#choose(index));
    // A pick ends the choice; arrow keys, which click too, go on choosing.
    radio.addEventListener('pointerup', () => setTimeout(() => this.#popover.hidePopover()));
    radio.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault(); // the focus goes back to the button, which the same press would click
      this.#choose(index);
      this.#popover.hidePopover();
    });
    return radio;
  }

  /** Any colour: the palette's nearest one is taken. */
  #any() {
    const label = document.createElement('label');
    label.className = 'any';
    const input = document.createElement('input');
    input.type = 'color';
    input.addEventListener('input', () => this.#choose(nearest(this.#palette, fromHex(input.value))));
    label.append('Any colour', input);
    return label;
  }

  #choose(token) {
    this.show(token);
    this.#chosen(token);
  }
}
