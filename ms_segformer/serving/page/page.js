// The page of `ms-segformer serve`: takes a picture, sends it to the server, and shows the classes over it.

import { offerCamera } from './camera.js';
import { LabelMap, colored } from './labels.js';
import * as pictures from './picture.js';
import { Problem, ask, isAbort } from './request.js';
import { detailOf, fraction, language, percent, say, speak, text, titleOf } from './words.js';

const get = (id) => document.getElementById(id);
const canvas = get('canvas');
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOUCH = matchMedia('(hover: none) and (pointer: coarse)').matches; // a phone: nothing is dropped, no pointer hovers
const STEPS = 40; // steps of an arrow key along the long side

let models = []; // as /v1/models lists them
let work = null; // AbortController of what is under way
let repeat = null; // what "Try again" does
let file = null; // the picture asked about
let photo = null; // it as a canvas, null where the browser cannot show it
let shown = null; // what is shown: { labels, received, model, seconds, file, plain, numbers, layer }
let hidden = new Set(); // ids of the classes switched off
let cross = null; // [x, y] of the pixel that the keys have reached
let pointed = null; // [x, y] of the pixel whose class is named below the picture

// ---- What is under way ----

// Runs a task that takes time: cancels the one before, shows progress and problems. The task gets the signal; `again`
// repeats it, or is null.
async function start(task, again) {
  work?.abort();
  const controller = new AbortController();
  work = controller;
  repeat = again;
  if (document.activeElement === get('again')) get('choose').focus(); // "Try again" goes away
  get('problem').hidden = true;
  try {
    await task(controller.signal);
  } catch (error) {
    if (work !== controller) return; // another task has taken its place
    if (isAbort(error)) showProblem('canceled');
    else showProblem(error instanceof Problem ? error : unexpected(error));
  } finally {
    if (work === controller) work = null;
  }
}

function unexpected(error) {
  console.error(error);
  return new Problem('failed', { detail: String(error) });
}

// Says what is being done, or what was, to everybody.
function tell(words, values) {
  get('doing').hidden = false;
  if (told === words && !values) return; // not read out again for every percent
  say(get('what'), words, values);
  say(get('live'), words, values);
  told = words;
}

let told = null;

// What is being done, with the share that is done, or the seconds until it is.
function state(words, share, seconds) {
  tell(words);
  underWay(true);
  say(get('how-far'), seconds === undefined ? null : 'inSeconds', { seconds });
  if (share === undefined) {
    get('progress').removeAttribute('value');
  } else {
    get('progress').value = share;
    get('how-far').textContent = percent(share, 0);
  }
}

function underWay(whether) {
  get('doing').classList.toggle('under-way', whether);
  for (const id of ['progress', 'cancel']) get(id).hidden = !whether;
}

// What was done.
function finished(words, values = {}) {
  if (document.activeElement === get('cancel')) get('choose').focus();
  underWay(false);
  say(get('how-far'), null);
  tell(words, values);
}

// A `report` for `ask`; waiting: what is said once the picture has arrived.
function reporter(signal, waiting) {
  return (name, value) => {
    if (signal.aborted) return;
    if (name === 'uploading') state('uploading', value);
    else if (name === 'waiting') state(waiting);
    else state(`${name}Again`, undefined, value);
  };
}

// problem: a Problem, or 'canceled'.
function showProblem(problem) {
  const canceled = problem === 'canceled';
  get('doing').hidden = true;
  get('problem').hidden = false;
  get('problem').classList.toggle('calm', canceled);
  say(get('live'), null);
  told = null;
  drawProblem(problem);
  get('problem').scrollIntoView({ block: 'nearest' });
  get('again').hidden = !repeat || !(canceled || problem.passing);
  if (['invalid-option', 'unreachable'].includes(problem.kind)) models = []; // another server may run by now
}

let problemShown = null;

function drawProblem(problem) {
  problemShown = problem;
  if (!problem) return;
  const canceled = problem === 'canceled';
  get('problem-title').textContent = canceled ? text('canceled') : titleOf(problem.kind, problem.title);
  const own = canceled ? '' : detailOf(problem.kind, problem.values);
  get('problem-detail').textContent = canceled ? '' : (problem.detail ?? own);
  get('problem-detail').lang = !canceled && problem.detail ? 'en' : '';
  if (!get('problem-detail').lang) get('problem-detail').removeAttribute('lang');
}

get('cancel').addEventListener('click', () => {
  work?.abort();
  get('choose').focus();
});
get('again').addEventListener('click', () => repeat?.());

// ---- Models ----

async function loadModels(signal) {
  const answer = await ask('v1/models', { accept: 'application/json', signal, report: reporter(signal) });
  try {
    models = JSON.parse(await answer.text()).models;
  } catch {
    throw new Problem('strange-answer');
  }
  const select = get('model');
  const before = select.value;
  select.replaceChildren(...models.map(({ name }) => new Option(name, name)));
  const names = models.map(({ name }) => name);
  select.value = names.includes(before) ? before : (models.find((model) => model.default) ?? models[0])?.name;
  get('models').hidden = models.length < 2;
}

get('model').addEventListener('change', () => file && segment(file));

// ---- A picture ----

// Sends a picture to the server and shows what it finds. Whatever was under way for another is canceled.
function segment(chosen) {
  return start(async (signal) => {
    file = chosen;
    clear();
    if (file.type && !file.type.startsWith('image/') && file.type !== 'application/octet-stream') {
      throw new Problem('media-type', { name: file.name, type: file.type });
    }
    state('uploading', 0);
    await readable(file);
    signal.throwIfAborted();
    const decoded = pictures.shown(file).then((picture) => {
      if (signal.aborted) return;
      photo = picture;
      if (photo) showPhoto();
    });
    const since = performance.now();
    if (!models.length) await loadModels(signal);
    const model = get('model').value;
    const received = await ask(`v1/segment?model=${encodeURIComponent(model)}`, {
      ...sending(file),
      accept: 'application/json',
      signal,
      report: reporter(signal, 'waiting'),
    });
    const seconds = (performance.now() - since) / 1000;
    await decoded;
    const labels = await labelsOf(received);
    signal.throwIfAborted();
    showResult({ labels, received, model, seconds, file });
  }, () => segment(chosen));
}

function sending(body) {
  return { method: 'POST', body, type: body.type || 'application/octet-stream' };
}

async function readable(body) {
  try {
    await body.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem('unreadable-file', { name: body.name });
  }
}

async function labelsOf(received) {
  try {
    return new LabelMap(JSON.parse(await received.text()));
  } catch (error) {
    console.warn(error);
    throw new Problem('strange-answer');
  }
}

// Takes away what is shown of the picture before.
function clear() {
  photo = shown = cross = pointed = null;
  hidden = new Set();
  for (const id of ['result', 'panel', 'cross', 'plain', 'credit']) get(id).hidden = true;
}

function showPhoto() {
  document.body.classList.add('with-picture');
  get('result').hidden = false;
  get('credit').hidden = !file.example;
  frame(photo.fullWidth, photo.fullHeight);
  canvas.getContext('2d').drawImage(photo, 0, 0, canvas.width, canvas.height);
  drawHere();
}

// Gives the canvas the form of a picture.
function frame(width, height) {
  [canvas.width, canvas.height] = pictures.shownSize(width, height);
  get('stage').style.setProperty('--ratio', width / height);
}

function showResult(result) {
  const { width, height } = result.labels;
  shown = result;
  // Rotations that the server knows and the browser does not show here: the picture would lie across.
  const differs = photo && Math.abs(photo.fullWidth * height - photo.fullHeight * width) > Math.max(width, height);
  shown.plain = !photo || differs;
  get('plain').hidden = !shown.plain;
  if (shown.plain) say(get('plain'), differs ? 'differs' : 'plain');
  document.body.classList.add('with-picture');
  get('result').hidden = get('panel').hidden = false;
  get('credit').hidden = !file.example;
  get('opacity').disabled = shown.plain;
  frame(width, height);
  shown.numbers = shown.labels.sample(canvas.width, canvas.height);
  shown.layer = pictures.blank(canvas.width, canvas.height);
  drawRows();
  color();
  drawHere();
  drawMadeBy();
  finished(shown.labels.segments.length ? 'done' : 'nothing', { count: shown.labels.segments.length });
}

// ---- The picture and its classes ----

// Colors the layer of the classes that are on, and draws.
function color() {
  if (!shown) return;
  const { labels, layer, numbers } = shown;
  layer.getContext('2d').putImageData(colored(numbers, labels.colors(hidden), layer.width), 0, 0);
  draw();
}

function opacity() {
  return shown.plain ? 1 : Number(get('opacity').value) / 100;
}

function draw() {
  if (!shown) return;
  const context = canvas.getContext('2d');
  context.globalAlpha = 1;
  if (shown.plain) {
    context.fillStyle = pictures.GROUND;
    context.fillRect(0, 0, canvas.width, canvas.height);
  } else {
    context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  }
  context.globalAlpha = opacity();
  context.drawImage(shown.layer, 0, 0);
  context.globalAlpha = 1;
}

let drawing = 0;

get('opacity').addEventListener('input', () => {
  drawOpacity();
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(draw);
});

function drawOpacity() {
  get('opacity-value').textContent = percent(get('opacity').value / 100, 0);
  get('opacity').setAttribute('aria-valuetext', get('opacity-value').textContent);
}

function nameOf(segment) {
  const own = models.find(({ name }) => name === shown.model)?.classes.find(({ id }) => id === segment.id);
  return (language === 'zh' && own?.label_zh) || segment.label;
}

// ---- The class at a point ----

canvas.addEventListener('pointermove', pointAt);
canvas.addEventListener('pointerdown', pointAt);
canvas.addEventListener('pointerleave', ({ pointerType }) => {
  if (pointerType === 'touch') return; // a finger is lifted to read what it pointed at
  pointed = get('cross').hidden ? null : cross;
  drawHere();
});

function pointAt({ clientX, clientY }) {
  if (!shown) return;
  const { width, height } = shown.labels;
  const area = canvas.getBoundingClientRect();
  const inside = (value, size) => Math.min(size - 1, Math.max(0, Math.floor(value * size)));
  pointed = [
    inside((clientX - area.left) / area.width, width),
    inside((clientY - area.top) / area.height, height),
  ];
  drawHere();
}

canvas.addEventListener('keydown', (event) => {
  const direction = KEYS[event.key];
  if (!shown || !direction || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const { width, height } = shown.labels;
  const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / STEPS));
  if (cross) {
    cross = [
      Math.min(width - 1, Math.max(0, cross[0] + step * direction[0])),
      Math.min(height - 1, Math.max(0, cross[1] + step * direction[1])),
    ];
  } else {
    cross = [Math.floor(width / 2), Math.floor(height / 2)];
  }
  pointed = cross;
  get('cross').hidden = false;
  get('cross').style.left = `${((cross[0] + 0.5) / width) * 100}%`;
  get('cross').style.top = `${((cross[1] + 0.5) / height) * 100}%`;
  drawHere();
  say(get('live'), null);
  get('live').textContent = get('here-text').textContent;
});
canvas.addEventListener('blur', () => {
  get('cross').hidden = true;
  if (pointed === cross) pointed = null;
  drawHere();
});
canvas.addEventListener('focus', () => {
  if (!cross || !shown) return;
  get('cross').hidden = false;
  pointed = cross;
  drawHere();
});

// Names the class at the point below the picture, and marks its row.
function drawHere() {
  const found = shown && pointed ? shown.labels.segmentAt(...pointed) : undefined;
  get('here-color').hidden = !found;
  if (found) get('here-color').style.backgroundColor = found.color;
  get('here').classList.toggle('hint', !pointed);
  const label = found ? nameOf(found) : text('noClass');
  if (!shown) say(get('here-text'), null);
  else if (pointed) get('here-text').textContent = text('here', { label, x: pointed[0], y: pointed[1] });
  else get('here-text').textContent = text(TOUCH ? 'hintTouch' : 'hint');
  for (const row of get('rows').rows) row.classList.toggle('here', Boolean(found) && row.dataset.id === String(found.id));
}

// ---- The classes ----

function drawRows() {
  get('rows').replaceChildren(...shown.labels.segments.map(rowOf));
  if (!shown.labels.segments.length) {
    const cell = element('td', { colSpan: 3, textContent: text('nothing') });
    get('rows').append(element('tr', {}, cell));
  }
  get('all').disabled = get('none').disabled = !shown.labels.segments.length;
}

function rowOf(segment) {
  const box = element('input', { type: 'checkbox', checked: !hidden.has(segment.id), value: String(segment.id) });
  const swatch = element('span', { className: 'swatch' });
  swatch.style.backgroundColor = segment.color;
  const label = element('label', {}, box, swatch, element('span', { textContent: nameOf(segment) }));
  const row = element(
    'tr',
    {},
    element('th', { scope: 'row' }, label),
    element('td', { className: 'number', textContent: percent(segment.share) }),
    element('td', { className: 'number', textContent: fraction(segment.score, 2) }),
  );
  row.dataset.id = String(segment.id);
  return row;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

get('rows').addEventListener('change', ({ target }) => {
  const id = Number(target.value);
  if (target.checked) hidden.delete(id);
  else hidden.add(id);
  color();
});

function switchAll(on) {
  hidden = new Set(on ? [] : shown.labels.segments.map(({ id }) => id));
  for (const box of get('rows').querySelectorAll('input')) box.checked = on;
  color();
}

get('all').addEventListener('click', () => switchAll(true));
get('none').addEventListener('click', () => switchAll(false));

function drawMadeBy() {
  const { labels, model, seconds } = shown;
  const { variant, engine, precision } = models.find(({ name }) => name === model) ?? {};
  const details = [variant, engine, precision].filter(Boolean).join(', ');
  const values = { name: model, details, height: labels.height, width: labels.width, seconds: fraction(seconds, 1) };
  say(get('made-by'), 'madeBy', values);
}

// ---- Downloads ----

function save(content, suffix) {
  const name = `${shown.file.name.replace(/\.[^.]*$/, '') || 'picture'}${suffix}`;
  const url = URL.createObjectURL(content);
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  finished('saved', { name });
}

function saveLabels() {
  start(async (signal) => {
    state('uploading', 0);
    const labels = await ask(`v1/segment?model=${encodeURIComponent(shown.model)}`, {
      ...sending(shown.file),
      accept: 'image/png',
      signal,
      report: reporter(signal, 'labelMap'),
    });
    save(labels, '_labels.png');
  }, saveLabels);
}

function saveOverlay() {
  start(async (signal) => {
    state('drawing');
    const { file: picture, labels, plain } = shown;
    save(await pictures.overlay(plain ? null : picture, labels, new Set(hidden), opacity(), signal), '_overlay.jpg');
  }, saveOverlay);
}

get('save-labels').addEventListener('click', saveLabels);
get('save-overlay').addEventListener('click', saveOverlay);
get('save-json').addEventListener('click', () => save(shown.received, '.json'));

// ---- Where pictures come from ----

function take(files) {
  const chosen = [...(files ?? [])];
  if (!chosen.length) return false;
  segment(chosen[0]);
  get('several').hidden = chosen.length < 2;
  say(get('several'), 'firstOnly', { count: chosen.length, name: chosen[0].name });
  return true;
}

get('choose').addEventListener('click', () => get('file').click());
get('file').addEventListener('change', () => {
  take(get('file').files);
  get('file').value = ''; // so that the same file can be chosen again
});
get('example').addEventListener('click', showExample);

function showExample() {
  start(async (signal) => {
    const picture = await ask('page/example.jpg', { accept: 'image/jpeg', signal });
    const example = new File([picture], 'example.jpg', { type: 'image/jpeg' });
    example.example = true;
    take([example]);
  }, showExample);
}

document.addEventListener('paste', ({ clipboardData }) => {
  if (!get('camera').open) take(clipboardData.files);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  if (event.dataTransfer.types.includes('Files')) document.body.classList.add('dropping');
});
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove('dropping');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  if (take(event.dataTransfer.files)) return;
  start(() => Promise.reject(new Problem('no-file')), null);
});
offerCamera((picture) => take([picture]));

// ---- Languages ----

function speakNow(name) {
  speak(name);
  get('in-english').setAttribute('aria-pressed', String(name === 'en'));
  get('in-chinese').setAttribute('aria-pressed', String(name === 'zh'));
  drawOpacity();
  if (!get('problem').hidden) drawProblem(problemShown);
  if (!shown) return;
  drawRows();
  drawHere();
  drawMadeBy();
}

get('in-english').addEventListener('click', () => speakNow('en'));
get('in-chinese').addEventListener('click', () => speakNow('zh'));
speakNow(language);
say(get('intake-heading'), TOUCH ? 'intakeTouch' : 'intake');

function begin() {
  start(async (signal) => {
    await loadModels(signal);
    get('doing').hidden = true;
  }, begin);
}

begin();
