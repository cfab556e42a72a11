/** Things that are done once the visitor pauses, however often they are asked for meanwhile. */

const PAUSE = 300; // milliseconds

/** A function that runs `action` after a pause; `now` runs it at once. */
export function afterPause(action) {
  let timer;
  const now = () => {
    clearTimeout(timer);
    return action();
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(action, PAUSE);
  };
  return Object.assign(later, { now });
}

/** As `afterPause`, for what takes long: a run begins when the one before has ended. */
export function oneAtATime(action) {
  let running = false;
  let again = false;
  return afterPause(async () => {
    again = running;
    if (running) return;
    running = true;
    do {
      again = false;
      await action();
    } while (again);
    running = false;
  });
}
