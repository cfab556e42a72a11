/**
 * Every error this package raises on purpose.
 *
 *     IgptError
 *     +-- OptionError   an option is out of range or does not fit the bundle
 *     +-- ImageError    a picture is not one
 *     +-- BundleError   a bundle is missing, damaged, of an unknown version, or lacks what was asked of it
 *     +-- RuntimeError  ONNX Runtime is not there, has not enough memory, or failed
 *
 * Each message is one line: a fact, where, and what to do about it. A cancelled call throws its signal's reason instead.
 */

/** Base of all errors a user can cause or fix. `field` names the option, argument or manifest field at fault. */
export class IgptError extends Error {
  /**
   * @param {string} message
   * @param {string} [field]
   * @param {unknown} [cause]
   */
  constructor(message, field, cause) {
    super(harmless(message), cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.field = field;
  }
}

export class OptionError extends IgptError {}
export class ImageError extends IgptError {}
export class BundleError extends IgptError {}
export class RuntimeError extends IgptError {}

/** A text in one line, without the characters that a terminal obeys: names of files, labels and nodes are others'. */
function harmless(text) {
  return text
    .replace(/[\t\n\r\u2028\u2029]+/g, ' ')
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

const LONGEST = 300; // characters of a foreign error

/** What a foreign error says, to quote in a message: its first line, without its middle if that is long. */
export function reason(error) {
  if (typeof error === 'number') {
    return `exception ${error} in WebAssembly`; // of C++, whose words stay there
  }
  const words = String(error?.message || error?.name || error).trim();
  const line = words.split(/[\r\n\u2028\u2029]/, 1)[0];
  return line.length > LONGEST ? `${line.slice(0, LONGEST / 2)} ... ${line.slice(-LONGEST / 2)}` : line;
}
