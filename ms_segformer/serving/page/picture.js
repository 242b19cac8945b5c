// Pictures: read, shown at the size of a screen, drawn at full size.

import { colored } from './labels.js';
import { Problem } from './request.js';

const LONGEST = 2048; // pixels of the long side on the page; the download has all
const BAND = 1 << 22; // pixels drawn at a time at full size, so that the page keeps answering

export const GROUND = '#eef0f2'; // below the classes where there is no picture

// The size at which a picture is shown.
export function shownSize(width, height) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

// A canvas with the picture, upright, at the size at which it is shown, and its own size as `fullWidth` and
// `fullHeight`; null where the browser cannot read it.
export async function shown(file) {
  const picture = await read(file);
  if (!picture) return null;
  const { width: fullWidth, height: fullHeight } = picture;
  const canvas = blank(...shownSize(fullWidth, fullHeight));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture.source, 0, 0, canvas.width, canvas.height);
  picture.close();
  return Object.assign(canvas, { fullWidth, fullHeight });
}

// The picture of a file with colors over it, at the size of the label map, as a JPEG. Throws Problem where the browser
// makes no picture this large.
export async function overlay(file, labels, hidden, opacity, signal) {
  const { width, height } = labels;
  const canvas = blank(width, height);
  const context = canvas.getContext('2d');
  const tooLarge = new Problem('too-large-to-draw', { width, height });
  if (!context) throw tooLarge;
  context.fillStyle = GROUND;
  context.fillRect(0, 0, width, height);
  const picture = file && (await read(file));
  if (picture) {
    context.drawImage(picture.source, 0, 0, width, height);
    picture.close();
  }
  const colors = labels.colors(hidden);
  const rows = Math.max(1, Math.floor(BAND / width));
  const band = blank(width, Math.min(rows, height));
  context.globalAlpha = opacity;
  for (let top = 0; top < height; top += rows) {
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
    const bottom = Math.min(height, top + rows);
    band.getContext('2d').putImageData(colored(labels.sample(width, height, top, bottom), colors, width), 0, 0);
    context.drawImage(band, 0, 0, width, bottom - top, 0, top, width, bottom - top);
  }
  const made = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.92));
  signal.throwIfAborted();
  if (!made) throw tooLarge;
  return made;
}

export function blank(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// The file's picture as the camera was held, or null. Decoding takes no time from the page where the browser has
// createImageBitmap with this option.
async function read(file) {
  try {
    const source = await createImageBitmap(file, { imageOrientation: 'from-image' });
    return { source, width: source.width, height: source.height, close: () => source.close() };
  } catch {
    // too old for the option, or no picture: the second way tells
  }
  const source = new Image();
  const url = URL.createObjectURL(file);
  const close = () => URL.revokeObjectURL(url);
  source.src = url;
  try {
    await source.decode();
    return { source, width: source.naturalWidth, height: source.naturalHeight, close };
  } catch {
    close();
    return null;
  }
}
