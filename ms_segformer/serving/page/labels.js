// Label maps: from the run lengths of an answer to the class of every pixel, and to colors.

// The classes of an answer's picture.
//
// `at` has a number for every pixel, columns one after the other as COCO has them (pixel x, y at x * height + y):
// 0 where there is no class, otherwise 1 + the position of its segment in `segments`.
export class LabelMap {
  // answer: what /v1/segment sends as JSON. Throws RangeError where it contradicts itself.
  constructor({ height, width, segments }) {
    this.height = height;
    this.width = width;
    this.segments = segments;
    this.at = new (segments.length < 256 ? Uint8Array : Uint16Array)(height * width);
    segments.forEach(({ mask }, position) => {
      if (mask.size[0] !== height || mask.size[1] !== width) throw new RangeError('a mask has another size');
      fill(this.at, mask.counts, position + 1);
    });
  }

  // The segment at a pixel, or undefined.
  segmentAt(x, y) {
    return this.segments[this.at[x * this.height + y] - 1];
  }

  // The numbers at width × height points spread evenly over the rows top to bottom of the map enlarged or reduced to
  // width × height; rows one after the other, as canvases have them.
  sample(width, height, top = 0, bottom = height) {
    const found = new this.at.constructor(width * (bottom - top));
    const rows = new Int32Array(bottom - top);
    for (let y = top; y < bottom; y++) rows[y - top] = Math.floor(((y + 0.5) * this.height) / height);
    for (let x = 0; x < width; x++) {
      const column = Math.floor(((x + 0.5) * this.width) / width) * this.height;
      for (let y = 0, to = x; y < rows.length; y++, to += width) found[to] = this.at[column + rows[y]];
    }
    return found;
  }

  // The color of every number as a canvas holds it, four bytes each; transparent for those hidden and for 0.
  colors(hidden) {
    const bytes = new Uint8ClampedArray(4 * (this.segments.length + 1));
    this.segments.forEach(({ id, color }, position) => {
      if (hidden.has(id)) return;
      const value = parseInt(color.slice(1), 16);
      bytes.set([value >> 16, (value >> 8) & 255, value & 255, 255], 4 * (position + 1));
    });
    return new Uint32Array(bytes.buffer);
  }
}

// ImageData of sampled numbers in their colors.
export function colored(numbers, colors, width) {
  const image = new ImageData(width, numbers.length / width);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colors[numbers[i]];
  return image;
}

// Writes a value where COCO's compressed run lengths say "inside". Runs outside and inside take turns. A run is written
// in groups of five bits, the lowest first, each in a character from '0' on; a sixth bit says that more follow, and the
// highest bit of the last group is the sign. From the fourth run on, the difference to the run before the last is
// written.
function fill(array, counts, value) {
  let position = 0;
  let last = 0;
  let beforeLast = 0;
  for (let at = 0, number = 0; at < counts.length; number++) {
    let run = 0;
    let shift = 0;
    let group;
    do {
      group = counts.charCodeAt(at++) - 48;
      if (!(group >= 0 && group < 64) || shift > 25) throw new RangeError('run lengths that are none');
      run |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) run |= -1 << shift;
    if (number > 2) run += beforeLast;
    if (run < 0 || position + run > array.length) throw new RangeError('a run goes beyond the picture');
    if (number % 2) array.fill(value, position, position + run);
    position += run;
    beforeLast = last;
    last = run;
  }
}
