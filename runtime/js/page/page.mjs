/** The page: what the visitor does, and what the model is asked for. */

import { Insight } from './insight.mjs';
import { oneAtATime } from './later.mjs';
import { Line } from './line.mjs';
import { Address, readLink } from './link.mjs';
import { RemoteModel } from './model.mjs';
import { ModelStatus, listModels, pickModel, pickedModel } from './models.mjs';
import { Options, sentence, wordsOf } from './options.mjs';
import { Pad } from './pad.mjs';
import { Progress } from './progress.mjs';
import { Results } from './results.mjs';
import { Shelf, readSheet } from './shelf.mjs';
import { listen } from './source.mjs';
import { Tools } from './tools.mjs';

const $ = (id) => document.getElementById(id);
const elements = (ids) => Object.fromEntries(Object.entries(ids).map(([name, id]) => [name, $(id)]));

const model = new RemoteModel((message) => (message.type === 'step' ? drawn(message) : loading(message)));
const pad = new Pad($('pad'), $('cursor'), pictureChanged);
const line = new Line({
  ...elements({ handle: 'keep', rail: 'rail', stage: 'stage', kept: 'kept', drawn: 'drawn' }),
  changed: lineChanged,
});
const fields = elements({ n: 'n', seed: 'seed', temperature: 'temperature', topK: 'topK', topP: 'topP' });
const options = new Options(fields, () => address.write());
const shelf = new Shelf($('shelf'), ({ name, image }) => use(image, name));
const tools = new Tools(pad);
const results = new Results(
  elements({ section: 'results', list: 'list', note: 'note', gif: 'gif', again: 'again', steps: 'steps' }),
  (completions) => model.ask('gif', completions),
  (error) => tell('error', error.message),
);
const address = new Address(
  () => opened && { model: pickedModel($('model')).name, sample: pad.sample, keep: line.rows, ...options.texts() },
);
const modelStatus = new ModelStatus(
  elements({ area: 'loading', text: 'loading-text', bar: 'loading-bar', error: 'model-error', retry: 'retry' }),
);
const progress = new Progress($('progress'), $('left'));
const insight = new Insight(
  elements({
    section: 'insight', classes: 'classes', map: 'surprise', bar: 'scale-bar', scale: 'scale-marks', summary: 'nats',
    error: 'insight-error', unlike: 'unlike',
  }),
);

let opened; // what the worker says of the model, once it can be asked
let openings = 0; // so that an overtaken one is dropped
let recommended; // address of the model whose recommendation the options started from
let takings = 0; // so that an overtaken picture is dropped
let hasGpu = false; // whether the browser has WebGPU and something to run it on
let running = false; // whether completions are being drawn

function say(text) {
  $('status').textContent = text;
  $('left').textContent = '';
}

/** Shows what is wrong where it is; nothing is if `words` is empty. */
function tell(place, words = '') {
  $(place).textContent = words;
}

// The model

function loading(message) {
  const words = modelStatus.loading(message);
  if (running) say(words);
}

/** Opens the chosen model; what an address asks for is restored. */
async function open(link = {}) {
  const mine = ++openings;
  takings++;
  const kept = pad.blank ? undefined : { image: pad.image, sample: pad.sample };
  model.stop();
  opened = undefined;
  results.clear();
  insight.clear();
  modelStatus.begin();
  tell('error');
  $('complete').disabled = true;
  say('Loading');
  try {
    const { url, canUseGpu } = pickedModel($('model'));
    $('provider-field').hidden = !(hasGpu && canUseGpu);
    const onGpu = hasGpu && canUseGpu && $('provider').value === 'webgpu';
    const answer = await model.ask('open', { url, onGpu });
    if (mine !== openings) return;
    await prepare(answer, url, link, kept);
    if (mine !== openings) return;
    modelStatus.end();
    $('complete').disabled = !opened.draws;
    say(!opened.draws ? 'This model cannot draw: it has no decode graph' : onGpu ? 'Ready, with WebGPU' : 'Ready');
  } catch (error) {
    if (mine !== openings) return;
    modelStatus.fail(error.message, true);
    say('There is no model');
  }
}

/** The page for an opened model, with the picture that an address names, or that was there before. */
async function prepare(answer, url, link, kept) {
  const { size, palette, sampling, examples } = answer;
  const isAnother = recommended !== url;
  recommended = url;
  $('stage').style.setProperty('--side', size.width);
  $('stage').style.setProperty('--shape', `${size.width} / ${size.height}`);
  pad.reset(size, palette);
  tools.reset(palette);
  if (isAnother) {
    line.reset(size.height);
    options.set(Object.fromEntries(Object.entries(sampling).map(([name, value]) => [name, String(value)])));
  }
  if (/^\d+$/.test(link.keep ?? '')) line.rows = Number(link.keep);
  options.set(link);
  if (options.invalid()) $('options').open = true;
  tell('file-error');
  const samples = await (examples ? readSheet(url, examples, size) : Promise.resolve([])).catch((error) => {
    tell('file-error', error.message);
    return [];
  });
  if (recommended !== url) return;
  shelf.fill(samples);
  opened = answer;
  const named = link.sample === undefined ? undefined : shelf.find(link.sample);
  if (link.sample !== undefined && !named) tell('file-error', `This model has no sample picture called “${link.sample}”.`);
  const picture = named ? { image: named.image, sample: named.name } : kept;
  // An address names all there is; a picture of before is seen through the new model's eyes.
  if (picture) await take(picture.image, shelf.find(picture.sample) && picture.sample);
  else await model.ask('look', { image: pad.image }); // which loads the weights
  pictureShown();
}

// The picture

/** Shows a picture, pixels or a file, as the model sees it. sample: its name on the shelf, if it is from there. */
async function take(image, sample) {
  const mine = ++takings;
  const tokens = await model.ask('look', { image });
  if (mine === takings) pad.load(tokens, { image, sample });
}

/** The same at the visitor's wish: what is wrong is said beside the shelf and the picker. */
async function use(image, sample) {
  tell('file-error');
  try {
    if (!opened) throw new Error('There is no model yet that could look at it.');
    await take(image, sample);
  } catch (error) {
    tell('file-error', sentence(error.message));
  }
}

function pictureChanged() {
  takings++;
  outdate();
  pictureShown();
}

function pictureShown() {
  tools.show();
  shelf.mark(pad.sample);
  if (pad.blank) insight.clear();
  else insight.wait();
  judge();
  address.write();
}

function lineChanged() {
  outdate();
  insight.keep(line.rows);
  address.write();
}

/** What is drawn, or being drawn, is of another picture. */
function outdate() {
  if (running) model.stop();
  results.outdate();
}

/** Asks what the model makes of the picture. */
const judge = oneAtATime(async () => {
  if (pad.blank || !opened) return;
  const [of, asked] = [opened, takings];
  const isCurrent = () => of === opened && asked === takings && !pad.blank;
  try {
    const judgement = await model.ask('judge', { image: pad.image });
    if (!isCurrent()) return;
    insight.show(judgement, of.size);
    insight.keep(line.rows);
  } catch (error) {
    if (isCurrent()) insight.fail(sentence(error.message));
  }
});

// The completions

async function complete() {
  tell('error');
  const wrong = options.invalid();
  if (wrong) {
    $('options').open = true;
    wrong.focus();
    return;
  }
  const request = { ...options.request(), keepRows: line.rows };
  const pixels = pad.pixels();
  const title = [pickedModel($('model')).name, pad.sample ?? 'picture', `seed${request.seed}`].join('-');
  const { n, keepRows: rows } = request;
  results.begin({ n, pixels, rows, palette: opened.palette, title, words: wordsOf(request, pixels.height) });
  progress.begin(pixels.width * pixels.height);
  showRunning(true);
  say('Reading the picture');
  try {
    const { tokens, stopped } = await model.ask('complete', { image: pad.image, options: request });
    if (!stopped) results.finish(tokens);
    say(stopped ? 'Stopped' : `Done in ${progress.seconds.toFixed(1)} s`);
  } catch (error) {
    say('Nothing was drawn');
    if (options.tell(error.field, sentence(error.message))) $('options').open = true;
    else tell('error', sentence(error.message));
  } finally {
    progress.end();
    showRunning(false);
  }
}

function newSeed() {
  options.set({ seed: String(crypto.getRandomValues(new Uint16Array(1))[0]) });
  address.write();
}

function drawn({ position, tokens }) {
  if (!running) return;
  results.step(position, tokens);
  if (progress.step(position)) say('Drawing');
}

function showRunning(on) {
  running = on;
  const hadFocus = [$('complete'), $('again'), $('stop')].includes(document.activeElement);
  $('complete').disabled = on || !opened?.draws;
  $('stop').hidden = !on;
  if (hadFocus) $(on ? 'stop' : 'complete').focus();
}

// The address

async function copyLink() {
  const without = pad.blank || pad.sample !== undefined ? '' : ' Your own picture is not in it.';
  say(`The link is ${(await address.copy()) ? 'copied' : 'in the address bar'}.${without}`);
}

/** Does what the address says. */
async function follow() {
  const link = readLink(location.hash);
  const known = pickModel($('model'), link.model);
  pad.clear();
  await open(link);
  if (link.model !== undefined && !known) {
    modelStatus.fail(`The link is of the model “${link.model}”, which is not served here.`, false);
  }
}

$('model').addEventListener('change', () => open());
$('provider').addEventListener('change', () => open());
$('retry').addEventListener('click', () => ($('model').length ? (pad.blank ? follow : open)() : start()));
$('complete').addEventListener('click', complete);
$('stop').addEventListener('click', () => model.stop());
$('copy').addEventListener('click', copyLink);
$('dice').addEventListener('click', () => newSeed());
$('again').addEventListener('click', () => {
  newSeed();
  complete();
});
listen({ input: $('file'), stage: $('stage'), taken: (file) => use(file, undefined), refused: (words) => tell('file-error', words) });
addEventListener('hashchange', follow);

/** Lists the models, and opens the one that the address names, or the first. */
async function start() {
  modelStatus.begin();
  try {
    await listModels($('model'));
  } catch (error) {
    modelStatus.fail(error.message, true);
    say('There is no model');
    return;
  }
  hasGpu = Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
  await follow();
}

await start();
