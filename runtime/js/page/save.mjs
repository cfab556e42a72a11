/** Gives the visitor a file. */

export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may ask where to put it first
}

/** A name without what file systems do not take. */
export function fileName(...parts) {
  return parts
    .filter((part) => part !== undefined && part !== '')
    .join('-')
    .replace(/[^\w.-]+/g, '_');
}
