/** Pictures of the visitor's own: opened, dropped or pasted. They stay in the browser. */

/** taken: called with a file. refused: called with words if what came is no file. */
export function listen({ input, stage, taken, refused }) {
  input.addEventListener('change', () => {
    if (input.files[0]) taken(input.files[0]);
    input.value = ''; // so that the same file can be opened again
  });
  let depth = 0; // of the elements that what is dragged has entered
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    stage.classList.toggle('over', depth > 0);
  };
  addEventListener('dragenter', () => mark(1));
  addEventListener('dragleave', () => mark(-1));
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    mark(-Infinity);
    const [file] = event.dataTransfer.files;
    if (file) taken(file);
    else refused('What was dropped is not a file. Save the picture first, then drop its file.');
  });
  addEventListener('paste', (event) => {
    if (event.target.matches?.('input:not([type=radio], [type=file])')) return;
    const [file] = event.clipboardData.files;
    if (file) taken(file);
    else refused('The clipboard holds no picture.');
  });
}
