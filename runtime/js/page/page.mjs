/** The page: what the visitor does, and what the model is asked for. */

import { imageOf } from '/js/web.mjs';
import { RemoteModel } from './model.mjs';
import { Pad } from './pad.mjs';
import { Completions, paintKept, showClasses, showSurprise } from './view.mjs';

const $ = (id) => document.getElementById(id);
const SAMPLING = ['temperature', 'topK', 'topP'];

const model = new RemoteModel((message) => (message.type === 'step' ? drawn(message) : loading(message)));
const pad = new Pad($('pad'), () => use(undefined));
let opened; // what the worker says of the model
let controlled; // address of the model from whose recommendation the controls started
let picture; // an opened picture; undefined: the pad's
let seen; // the picture as the model sees it
let completions;
let hasGpu = false; // whether the browser has WebGPU and something to run it on
let began; // {time, position} of the first step
let looking = 0; // so that an overtaken look is dropped

function say(text) {
  $('status').textContent = text;
}

function fail(error) {
  $('error').textContent = error.message;
  $('error').hidden = false;
}

/** Does something; what goes wrong is shown in words. */
async function attempt(action) {
  $('error').hidden = true;
  try {
    await action();
  } catch (error) {
    fail(error);
  }
}

function loading({ file, loaded, total }) {
  if (!began) say(`Loading ${file}: ${Math.round((100 * loaded) / total)} %`);
}

async function open() {
  opened = undefined;
  $('draw').disabled = true;
  say('Loading the model');
  const choice = $('model').selectedOptions[0];
  const forGpu = hasGpu && choice.dataset.precision === 'fp32'; // of rounded weights, a GPU here has no kernels
  $('provider-label').hidden = !forGpu;
  const onGpu = forGpu && $('provider').value === 'webgpu';
  opened = await model.ask('open', { url: choice.value, onGpu });
  if (controlled !== choice.value) {
    controlled = choice.value;
    $('keep').max = opened.size.height - 1;
    $('keep').value = Math.floor(opened.size.height / 2);
    for (const name of SAMPLING) $(name).value = opened.sampling[name];
  }
  await look();
  $('draw').disabled = !opened.draws;
  say(`Ready, ${onGpu ? 'WebGPU and ' : ''}${opened.threads} ${opened.threads === 1 ? 'thread' : 'threads'}`);
}

/** Takes a picture, or the pad's if undefined. */
function use(image) {
  picture = image;
  attempt(look);
}

async function look() {
  if (!opened) return;
  const mine = ++looking;
  const image = current();
  const result = await model.ask('look', { image });
  if (mine !== looking) return;
  seen = result.seen;
  showSeen();
  const { classes, score } = await model.ask('judge', { image });
  if (mine !== looking) return;
  showClasses($('classes'), classes);
  if (score) showSurprise($('surprise'), seen, score, $('nats'));
}

function current() {
  const { width, height, data } = picture ?? pad.image();
  return { width, height, data };
}

function showSeen() {
  if (!seen) return;
  const rows = Number($('keep').value);
  $('keep-value').textContent = `${rows} of ${seen.height}`;
  paintKept($('seen'), seen, rows);
}

async function draw() {
  const options = { keepRows: Number($('keep').value), n: Number($('n').value), seed: $('seed').value || '0' };
  // An empty control leaves the choice to the model.
  for (const name of SAMPLING) if ($(name).value !== '') options[name] = Number($(name).value);
  if (!/^\d+$/.test(options.seed)) throw new Error('the seed must be a whole number of at least 0');
  if (!(options.n >= 1 && options.n <= 16)) throw new Error('choose 1 to 16 completions');
  const kept = options.keepRows * seen.width;
  completions = new Completions($('completions'), seen, kept, options.n);
  began = undefined;
  $('progress').value = 0;
  $('draw').disabled = true;
  $('stop').disabled = false;
  say('Drawing');
  try {
    const result = await model.ask('complete', { image: current(), options });
    if (result.stopped) say('Stopped');
    else {
      completions.finish(result.tokens);
      say(`Done: ${rate(seen.width * seen.height - 1)}`);
    }
  } finally {
    $('draw').disabled = false;
    $('stop').disabled = true;
  }
}

function drawn({ position, tokens, colours }) {
  began ??= { time: performance.now(), position, n: tokens.length };
  if (position === began.position) say('Drawing');
  completions.step(position, colours);
  const total = seen.width * seen.height;
  $('progress').value = (position + 1 - began.position) / (total - began.position);
  if (position % seen.width === seen.width - 1) say(`Drawing: ${rate(position)}`);
}

function rate(position) {
  const seconds = (performance.now() - began.time) / 1000;
  const steps = position - began.position;
  const left = (seconds / Math.max(steps, 1)) * (seen.width * seen.height - 1 - position);
  const speed = Math.round((began.n * steps) / Math.max(seconds, 1e-3));
  return `${speed.toLocaleString('en')} tokens/s${left > 0.5 ? `, ${Math.ceil(left)} s left` : `, ${seconds.toFixed(1)} s`}`;
}

async function openFile(file) {
  if (!file) return;
  const image = await imageOf(file);
  const bitmap = await createImageBitmap(file);
  pad.show(bitmap);
  bitmap.close();
  use(image);
}

function setEraser(on) {
  pad.erases = on;
  $('eraser').setAttribute('aria-pressed', on);
  $('pen').setAttribute('aria-pressed', !on);
}

$('model').addEventListener('change', () => attempt(open));
$('provider').addEventListener('change', () => attempt(open));
$('file').addEventListener('change', () => attempt(() => openFile($('file').files[0])));
$('pen').addEventListener('click', () => setEraser(false));
$('eraser').addEventListener('click', () => setEraser(true));
$('pad').addEventListener('erase', () => setEraser(!pad.erases));
$('clear').addEventListener('click', () => pad.clear());
$('keep').addEventListener('input', showSeen);
$('draw').addEventListener('click', () => attempt(draw));
$('stop').addEventListener('click', () => model.stop());
$('dice').addEventListener('click', () => ($('seed').value = crypto.getRandomValues(new Uint32Array(1))[0]));
$('drop').addEventListener('dragover', (event) => {
  event.preventDefault();
  $('drop').classList.add('over');
});
$('drop').addEventListener('dragleave', () => $('drop').classList.remove('over'));
$('drop').addEventListener('drop', (event) => {
  event.preventDefault();
  $('drop').classList.remove('over');
  attempt(() => openFile(event.dataTransfer.files[0]));
});
addEventListener('paste', (event) => attempt(() => openFile(event.clipboardData.files[0])));

await attempt(async () => {
  const response = await fetch('/bundles.json').catch(() => undefined);
  if (!response?.ok) throw new Error('the list of models cannot be loaded; is igpt-run web still running?');
  for (const { name, precision, size, url } of await response.json()) {
    const option = new Option(`${name}, ${precision}, ${(size / 1e6).toFixed(0)} MB`, url);
    option.dataset.precision = precision;
    $('model').add(option);
  }
  hasGpu = Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
  await open();
});
