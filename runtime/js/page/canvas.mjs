/** Pictures on canvases and in files. */

const SAVED_SIDE = 512; // pixels that the shorter side of a saved picture has at least

/** RGB levels [3 * width * height] on a canvas of that size. */
export function paint(canvas, { width, height, data }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d').putImageData(image, 0, 0);
}

/** How many times as large a picture is saved. */
export function savedScale({ width, height }) {
  return Math.max(1, Math.ceil(SAVED_SIDE / Math.min(width, height)));
}

/** A canvas as PNG, each of its pixels a square of `scale` pixels. */
export function pngOf(canvas, scale) {
  const large = new OffscreenCanvas(scale * canvas.width, scale * canvas.height);
  const context = large.getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, large.width, large.height);
  return large.convertToBlob({ type: 'image/png' });
}
