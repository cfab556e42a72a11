/** The fields of a request: what they hold, and what is wrong with it, said below the field. */

const MAX_N = 16; // more than a page shows well
const MAX_SEED = 2n ** 64n - 1n;
const isNumber = (text) => text.trim() !== '' && Number.isFinite(Number(text));
const RULES = {
  n: [(text) => /^\d+$/.test(text) && text >= 1 && text <= MAX_N, `Choose a whole number from 1 to ${MAX_N}.`],
  seed: [(text) => /^\d+$/.test(text) && BigInt(text) <= MAX_SEED, 'Choose a whole number from 0 to 2⁶⁴ − 1.'],
  temperature: [(text) => text === '' || (isNumber(text) && text >= 0), 'Choose a number of at least 0.'],
  topK: [(text) => text === '' || (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))), 'Choose a whole number of at least 0.'],
  topP: [(text) => text === '' || (isNumber(text) && text > 0 && text <= 1), 'Choose a number above 0 and up to 1.'],
};
export const NAMES = Object.keys(RULES);

/** What is wrong with the text of a field; undefined if nothing is. An empty one of sampling leaves it to the model. */
export function problemOf(name, text) {
  const [holds, words] = RULES[name];
  return holds(text) ? undefined : words;
}

export class Options {
  #fields;

  /** fields: the input of each of NAMES. changed: called when one was changed. */
  constructor(fields, changed) {
    this.#fields = fields;
    for (const name of NAMES) {
      fields[name].addEventListener('input', () => {
        this.#check(name);
        changed();
      });
    }
  }

  /** Puts texts into fields; names that are missing stay. */
  set(texts) {
    for (const name of NAMES) {
      if (texts[name] === undefined) continue;
      this.#fields[name].value = texts[name];
      this.#check(name);
    }
  }

  /** The texts of all fields; undefined where it was left empty. */
  texts() {
    return Object.fromEntries(NAMES.map((name) => [name, this.#fields[name].value || undefined]));
  }

  /** The first field that holds what cannot be; undefined if there is none. */
  invalid() {
    return this.#fields[NAMES.filter((name) => !this.#check(name))[0]];
  }

  /** What `complete` takes. The seed stays text: numbers here end at 2^53. */
  request() {
    const { seed, ...others } = this.texts();
    const given = Object.entries(others).filter(([, text]) => text !== undefined);
    return { seed, ...Object.fromEntries(given.map(([name, text]) => [name, Number(text)])) };
  }

  /** Shows words below a field, or takes them away. Returns whether there is such a field. */
  tell(name, words) {
    const field = this.#fields[name];
    if (!field) return false;
    const place = document.getElementById(`${field.id}-error`);
    place.textContent = words ?? '';
    if (words) field.setAttribute('aria-invalid', 'true');
    else field.removeAttribute('aria-invalid');
    return true;
  }

  #check(name) {
    const field = this.#fields[name];
    const problem = field.validity.badInput ? RULES[name][1] : problemOf(name, field.value);
    this.tell(name, problem);
    return problem === undefined;
  }
}

/** How completions are drawn, in words. request: what `Options.request` gives, with keepRows. */
export function wordsOf({ seed, temperature, topK, topP, keepRows }, height) {
  const given = { temperature: [temperature, undefined], 'top-k': [topK, 0], 'top-p': [topP, 1] };
  const parts = Object.entries(given).filter(([, [value, off]]) => value !== undefined && value !== off);
  return [`${keepRows} of ${height} rows kept`, `seed ${seed}`, ...parts.map(([name, [value]]) => `${name} ${value}`)].join(', ');
}

/** What another module says, as a sentence of the page. */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? '' : '.'}`;
}
