/** Whether a picture is of the kind that a model was trained on, by what it costs. */

/**
 * Compares a picture, or its upper rows, with what the manifest says of the model's own.
 *
 * @param nats of the pixels of one row or more at the top
 * @returns null if there are none, or if the manifest does not say what such pictures cost
 */
export function likeness({ likelihood, image_format: form }, nats) {
  const rows = Math.floor(nats.length / form.width);
  if (!likelihood || rows === 0) return null;
  const natsPerToken = nats.reduce((sum, part) => sum + part, 0) / nats.length;
  const [low, median, high] = likelihood.by_rows[rows - 1];
  const unlike = natsPerToken > high + 2 * (high - median);
  const costs = [natsPerToken, low, high].map((cost) => cost.toFixed(1));
  const notice = unlike
    ? `unlike what this model was trained on: ${costs[0]} nats a pixel, its own pictures cost ${costs[1]} to ${costs[2]}`
    : null;
  return { natsPerToken, usual: [low, high], unlike, notice };
}
