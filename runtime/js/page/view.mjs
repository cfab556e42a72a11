/** Puts results on the page: pictures, probabilities, surprise. */

/** Draws an RGB picture {width, height, data} on a canvas of its size. */
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

/** Shows the picture as the model sees it, large, with what is not kept darkened. */
export function paintKept(canvas, picture, rows) {
  const scale = 10;
  const small = document.createElement('canvas');
  paint(small, picture);
  canvas.width = scale * picture.width;
  canvas.height = scale * picture.height;
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.fillStyle = 'rgb(0 0 0 / 60%)';
  context.fillRect(0, scale * rows, canvas.width, canvas.height);
  context.fillStyle = '#ff5a36';
  context.fillRect(0, scale * rows - 1, canvas.width, 2);
}

/** The completions being drawn. */
export class Completions {
  #contexts = [];
  #width;

  /** seen: the picture as the model sees it; kept: how many of its pixels stay. */
  constructor(parent, seen, kept, n) {
    this.#width = seen.width;
    const start = { ...seen, data: seen.data.slice() };
    start.data.fill(64, 3 * kept);
    parent.replaceChildren(
      ...Array.from({ length: n }, (_, i) => {
        const figure = document.createElement('figure');
        const canvas = document.createElement('canvas');
        canvas.setAttribute('role', 'img');
        canvas.setAttribute('aria-label', `Completion ${i + 1}`);
        paint(canvas, start);
        this.#contexts.push(canvas.getContext('2d'));
        figure.append(canvas, document.createElement('figcaption'));
        return figure;
      }),
    );
    this.parent = parent;
  }

  /** One more pixel of each; the next one is shown bright. */
  step(position, colours) {
    this.#contexts.forEach((context, i) => {
      this.#fill(context, position, `rgb(${colours[i].join(' ')})`);
      this.#fill(context, position + 1, '#ff5a36');
    });
  }

  /** They are finished: a link to save each. */
  finish(tokens) {
    [...this.parent.children].forEach((figure, i) => {
      const [canvas, caption] = figure.children;
      canvas.dataset.tokens = tokens[i].join(' ');
      const link = document.createElement('a');
      link.textContent = 'Save';
      link.setAttribute('aria-label', `Save completion ${i + 1}`);
      link.download = `completion-${i + 1}.png`;
      link.href = canvas.toDataURL();
      caption.replaceChildren(link);
    });
  }

  #fill(context, position, colour) {
    context.fillStyle = colour;
    context.fillRect(position % this.#width, Math.floor(position / this.#width), 1, 1);
  }
}

/** Class probabilities, the likeliest first; values of a regression have no meter. */
export function showClasses(parent, classes) {
  parent.replaceChildren(
    ...classes.map(({ label, probability, value }) => {
      const row = document.createElement('label');
      row.className = 'class';
      const name = document.createElement('span');
      name.textContent = label;
      const number = document.createElement('span');
      if (probability === undefined) {
        number.textContent = value.toPrecision(6);
        row.append(name, number);
      } else {
        const meter = document.createElement('meter');
        meter.value = probability;
        number.textContent = `${(100 * probability).toFixed(1)} %`;
        row.append(name, meter, number);
      }
      return row;
    }),
  );
}

/** How many nats each pixel took: dark for none, bright for the most. */
export function showSurprise(canvas, { width, height }, { nats, natsPerToken }, text) {
  const most = Math.max(...nats, 1e-9);
  const data = new Uint8Array(3 * width * height);
  nats.forEach((value, i) => data.set(heat(value / most), 3 * i));
  paint(canvas, { width, height, data });
  text.textContent =
    `${natsPerToken.toFixed(2)} nats per pixel. Dark pixels were expected, bright ones surprised the model: ` +
    `up to ${most.toFixed(1)} nats.`;
}

/** 0 .. 1 as black, purple, orange, yellow. */
function heat(share) {
  const stops = [[0, 0, 8], [92, 20, 110], [229, 92, 48], [252, 255, 164]];
  const place = Math.min(share, 0.999) * (stops.length - 1);
  const [low, high] = [stops[Math.floor(place)], stops[Math.floor(place) + 1]];
  return low.map((value, i) => Math.round(value + (high[i] - value) * (place % 1)));
}
