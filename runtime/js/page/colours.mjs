/** Colours of a model's palette, [red, green, blue] each: which is nearest, which to offer, and what they are called. */

const OFFERED = 40;
// Which everybody looks for: the corners of the cube, orange and brown.
const BASIC = ['#ffffff', '#000000', '#ff0000', '#00ff00', '#0000ff', '#ffff00', '#00ffff', '#ff00ff', '#ff8000', '#804000'];

/** The index of the palette's colour that is nearest to a colour. */
export function nearest(palette, colour) {
  let best = 0;
  palette.forEach((other, i) => {
    if (distance(other, colour) < distance(palette[best], colour)) best = i;
  });
  return best;
}

/** Indices of colours to choose from: as different as can be, greys first, then by hue and from dark to light. */
export function offered(palette, count = OFFERED) {
  const chosen = [...new Set(BASIC.map((hex) => nearest(palette, fromHex(hex))))];
  const gaps = palette.map((colour) => Math.min(...chosen.map((index) => distance(colour, palette[index]))));
  while (chosen.length < Math.min(count, palette.length)) {
    const farthest = gaps.indexOf(Math.max(...gaps));
    if (gaps[farthest] === 0) break; // what is left is there already
    chosen.push(farthest);
    palette.forEach((colour, i) => (gaps[i] = Math.min(gaps[i], distance(colour, palette[farthest]))));
  }
  const key = (index) => {
    const { hue, chroma, light } = look(palette[index]);
    return (chroma < 40 ? -1 : Math.round(hue / 30) % 12) * 1000 + light;
  };
  return chosen.sort((a, b) => key(a) - key(b));
}

/** A colour in words, for who does not see it. */
export function nameOf(colour) {
  const { hue, chroma, light } = look(colour);
  if (chroma < 24) return light > 235 ? 'white' : light < 30 ? 'black' : light > 160 ? 'light grey' : light < 90 ? 'dark grey' : 'grey';
  const names = ['red', 'orange', 'yellow', 'lime', 'green', 'mint', 'cyan', 'azure', 'blue', 'violet', 'magenta', 'pink'];
  const name = names[Math.round(hue / 30) % 12];
  return Math.min(...colour) > 110 ? `light ${name}` : Math.max(...colour) < 170 ? `dark ${name}` : name;
}

/** A colour as CSS and HTML write it. */
export function hexOf(colour) {
  return `#${colour.map((level) => level.toString(16).padStart(2, '0')).join('')}`;
}

export function fromHex(text) {
  return [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
}

/** Weighted as the eye is: most sensitive to green. */
function distance([r, g, b], [r2, g2, b2]) {
  return 3 * (r - r2) ** 2 + 6 * (g - g2) ** 2 + (b - b2) ** 2;
}

function look([red, green, blue]) {
  const most = Math.max(red, green, blue);
  const chroma = most - Math.min(red, green, blue);
  const sector = most === red ? (green - blue) / chroma : most === green ? 2 + (blue - red) / chroma : 4 + (red - green) / chroma;
  return { hue: chroma ? (60 * sector + 360) % 360 : 0, chroma, light: 0.3 * red + 0.59 * green + 0.11 * blue };
}
