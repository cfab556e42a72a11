/** The models that are served, and the control that picks one. A name that comes again gets a number: demo, demo~2. */

/** Fills the control. Throws an Error in words. */
export async function listModels(select) {
  const response = await fetch('/bundles.json').catch(() => undefined);
  if (!response?.ok) throw new Error('The list of models cannot be loaded; is igpt-run web still running?');
  const seen = new Map(); // how often a name was there
  for (const { name, precision, size, url } of await response.json()) {
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    const option = new Option(`${name}, ${precision}, ${(size / 1e6).toFixed(0)} MB`, count > 1 ? `${name}~${count}` : name);
    Object.assign(option.dataset, { precision, url });
    select.add(option);
  }
  select.parentElement.hidden = select.length < 2;
}

/** Picks the model of that name. Returns whether there is one. */
export function pickModel(select, name) {
  const found = [...select.options].find(({ value }) => value === name);
  if (found) found.selected = true;
  return found !== undefined;
}

/** What the picked one is: {name, url, canUseGpu}. Of rounded weights, a GPU here has no kernels. */
export function pickedModel(select) {
  const { value, dataset } = select.selectedOptions[0];
  return { name: value, url: dataset.url, canUseGpu: dataset.precision === 'fp32' };
}

/** Where the page says how far the model is loaded, and what is wrong with it. */
export class ModelStatus {
  #parts;

  /** parts: elements {area, text, bar, error, retry}. */
  constructor(parts) {
    this.#parts = parts;
  }

  begin() {
    const { area, text, bar, error, retry } = this.#parts;
    area.hidden = false;
    retry.hidden = true;
    error.textContent = '';
    text.textContent = 'Loading the model';
    bar.removeAttribute('value');
  }

  /** Of one file, in bytes. Returns it in words. */
  loading({ file, loaded, total }) {
    const share = loaded / Math.max(total, 1);
    const words = `Loading ${file}: ${Math.round(100 * share)} %`;
    this.#parts.text.textContent = words;
    this.#parts.bar.value = share;
    return words;
  }

  end() {
    this.#parts.area.hidden = true;
  }

  /** canRetry: whether to offer another try. */
  fail(words, canRetry) {
    this.end();
    this.#parts.error.textContent = words;
    this.#parts.retry.hidden = !canRetry;
  }
}
