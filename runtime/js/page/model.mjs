/** The model in its worker, as functions that return promises. */

export class RemoteModel {
  #worker;
  #waiting = new Map(); // id -> {resolve, reject}
  #next = 0;
  #ready;

  /** on: called with what comes unasked, messages of type loading and step. */
  constructor(on) {
    this.#worker = new Worker('/page/worker.mjs', { type: 'module' });
    this.#ready = new Promise((resolve, reject) => {
      this.#worker.onerror = (event) => reject(new Error(`the worker cannot start: ${event.message ?? 'see the console'}`));
      this.#worker.onmessage = ({ data }) => {
        if (data.type === 'ready') resolve();
        else if (data.type === 'done') this.#settle(data);
        else on(data);
      };
    });
  }

  /** Asks for a task of page/worker.mjs. Rejects with an Error in words; `field` names the option at fault, if any. */
  async ask(task, request = {}) {
    await this.#ready;
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, ...request });
    });
  }

  /** Ends the completions that are being drawn. */
  stop() {
    this.#worker.postMessage({ task: 'stop' });
  }

  #settle({ id, result, error, field }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(Object.assign(new Error(error), { field }));
  }
}
