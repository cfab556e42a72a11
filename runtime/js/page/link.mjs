/** What the address of the page says, so that who opens it finds the same model, sample picture, line and options. */

import { afterPause } from './later.mjs';

const FIELDS = ['model', 'sample', 'keep', 'n', 'seed', 'temperature', 'topK', 'topP'];

/**
 * @param {string} hash of the address
 * @returns {Record<string, string>} the fields that it has
 */
export function readLink(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  return Object.fromEntries(FIELDS.filter((name) => given.has(name)).map((name) => [name, given.get(name)]));
}

/** The hash of an address; fields that are undefined are left out, and so is everything else. */
export function writeLink(state) {
  const given = FIELDS.filter((name) => state[name] !== undefined).map((name) => [name, String(state[name])]);
  return `#${new URLSearchParams(given)}`;
}

export class Address {
  #write;

  /** stateOf: what belongs into the address now; undefined if that is not known yet. */
  constructor(stateOf) {
    this.#write = afterPause(() => {
      const state = stateOf();
      if (state) history.replaceState(null, '', writeLink(state));
    });
  }

  /** Browsers refuse an address that is written at every move of a hand, so this waits for a pause. */
  write() {
    this.#write();
  }

  /** Puts the link on the clipboard. Resolves to whether it could be. */
  async copy() {
    this.#write.now();
    try {
      await navigator.clipboard.writeText(location.href);
      return true;
    } catch {
      return false;
    }
  }
}
