/* generate.c - the generation loop: prefill once, give its cache to all rows, decode token by token. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARED_ROWS = 6, SHARED_PREFIX = 16 }; /* from so many on it is faster to store what rows have in common once */

struct igpt_run {
  igpt_model *model;
  graph id;
  igpt_sampling_options options; /* without a choice left */
  int64_t length, position;      /* given tokens, which have as many slots; the next position to draw */
  igpt_status failed;
  OrtIoBinding *binding;
  tensor *bound;
  size_t bound_count;
  uint8_t *cache;  /* of all layers */
  float *prefix;   /* likewise; NULL for decode */
  int64_t *tokens; /* [n], fed and drawn in place */
  float *uniforms; /* [n] */
  float *logits;   /* [n, n_clusters] */
  int64_t past_length, top_k;
  float temperature, top_p;
};

float igpt_uniform(uint64_t seed, uint32_t sample, uint32_t position) {
  static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t k0 = (uint32_t)(seed >> 32), k1 = (uint32_t)seed, key[3] = {k0, k1, k0 ^ k1 ^ 0x1bd11bda};
  uint32_t x0 = sample + k0, x1 = position + k1;
  for (uint32_t block = 0; block < 5; block++) {
    for (int i = 0; i < 4; i++) {
      const int r = rotations[block % 2][i];
      x0 += x1;
      x1 = (x1 << r | x1 >> (32 - r)) ^ x0;
    }
    x0 += key[(block + 1) % 3];
    x1 += key[(block + 2) % 3] + block + 1;
  }
  return (float)(x0 >> 8) * 0x1p-24f;
}

/* Binds a buffer as an input, an output or both: the graph then writes in place. Of the names one may be NULL. */
static void bind(igpt_call *call, igpt_run *run, const char *input, const char *output, char type, const char *shape,
                 void *data) {
  if (call->code) return;
  tensor *made = &run->bound[run->bound_count++];
  igpt_tensor(call, made, input ? input : "", type, shape, run->options.n, run->length, data);
  if (input) ORT(call, BindInput(run->binding, input, made->value));
  if (output) ORT(call, BindOutput(run->binding, output, made->value));
}

static void cache_name(char name[NAME_SIZE], const char *what, size_t i) {
  snprintf(name, NAME_SIZE, "%s.%zu.%s", what, i / 2, i % 2 ? "value" : "key");
}

/* The prefix of decode_shared: the slots of one row as float32 [1, H, L, hd], or [1, H, hd, L] of values. */
static void fill_prefix(const igpt_run *run, const uint8_t *slots, bool transposed, float *prefix) {
  const metadata *meta = &run->model->meta;
  const size_t length = (size_t)run->length, head_dim = (size_t)meta->head_dim;
  const bool int8 = igpt_item_size(meta, 'k') == 1;
  for (size_t head = 0; head < (size_t)meta->n_head; head++)
    for (size_t slot = 0; slot < length; slot++)
      for (size_t channel = 0; channel < head_dim; channel++) {
        const size_t from = (head * length + slot) * head_dim + channel;
        const size_t to = transposed ? (head * head_dim + channel) * length + slot : from;
        if (int8)
          prefix[to] = ((const int8_t *)slots)[from];
        else
          memcpy(&prefix[to], slots + from * sizeof(float), sizeof(float));
      }
}

/* What a tensor of the cache begins with, in each row and head: decode_shared's sentinel, or one row's slots. */
static void fill_cache(const igpt_run *run, const uint8_t *slots, uint8_t *cache, size_t size) {
  const metadata *meta = &run->model->meta;
  const size_t item = igpt_item_size(meta, 'k'), heads = (size_t)meta->n_head, head_dim = (size_t)meta->head_dim;
  const size_t count = (size_t)run->options.n * heads, given = (size_t)run->length * head_dim * item;
  const float one = 1;
  for (size_t i = 0; i < count; i++) {
    uint8_t *head = cache + i * (size / count);
    if (run->id == DECODE)
      memcpy(head, slots + i % heads * given, given);
    else if (item == 1)
      head[head_dim] = 127;
    else
      memcpy(head + head_dim * item, &one, sizeof one);
  }
}

/* Binds the cache of all layers. slots: what prefill computed for one row; NULL if no token is given. */
static void bind_cache(igpt_call *call, igpt_run *run, const uint8_t *slots) {
  const bool shared = run->id == DECODE_SHARED;
  const char *shape = shared ? "nHSw" : "nHPh";
  const size_t count = 2 * (size_t)run->model->meta.n_layer;
  const size_t size = igpt_size(call, 'k', shape, run->options.n, run->length);
  const size_t slots_size = igpt_size(call, 'k', "1HLh", 0, run->length);
  const size_t prefix_count = slots_size / igpt_item_size(&run->model->meta, 'k');
  const double gigabytes = (double)size * (double)count / 1e9;
  if (call->code) return;
  run->cache = calloc(count, size); /* zeros: attention multiplies empty slots by zero */
  if (shared) run->prefix = calloc(count, prefix_count * sizeof(float));
  if (!run->cache || (shared && !run->prefix))
    igpt_fail(call, IGPT_ERROR_MEMORY, "no memory is left for the cache, %.2f GB; draw fewer pictures at once",
              gigabytes);
  for (size_t i = 0; !call->code && i < count; i++) {
    char past[NAME_SIZE], present[NAME_SIZE], prefix[NAME_SIZE];
    uint8_t *cache = run->cache + i * size;
    cache_name(past, "past_key_values", i);
    cache_name(present, "present", i);
    cache_name(prefix, "prefix", i);
    if (slots) fill_cache(run, slots + i * slots_size, cache, size);
    bind(call, run, past, present, 'k', shape, cache);
    if (!shared) continue;
    fill_prefix(run, slots + i * slots_size, i % 2, run->prefix + i * prefix_count);
    bind(call, run, prefix, NULL, 'f', i % 2 ? "1HhL" : "1HLh", run->prefix + i * prefix_count);
  }
}

/* The cache of sos and all given tokens but the last, which the first step feeds; to be freed. */
static uint8_t *prefill(igpt_call *call, const igpt_run *run, const int64_t *primer) {
  igpt_model *model = call->model;
  const size_t count = 2 * (size_t)model->meta.n_layer, length = (size_t)run->length;
  const size_t size = igpt_size(call, 'k', "1HLh", 0, run->length);
  const bool was_open = model->graphs[PREFILL].session != NULL;
  tensor input, *outputs = calloc(count, sizeof *outputs);
  int64_t *fed = malloc(length * sizeof *fed);
  uint8_t *slots = call->code ? NULL : calloc(count, size);
  if (!outputs || !fed || !slots)
    igpt_fail_memory(call);
  else {
    fed[0] = model->meta.sos;
    memcpy(fed + 1, primer, (length - 1) * sizeof *fed);
    igpt_tensor(call, &input, "input_ids", 'i', "1L", 0, run->length, fed);
    for (size_t i = 0; i < count; i++) {
      char name[NAME_SIZE];
      cache_name(name, "present", i);
      igpt_tensor(call, &outputs[i], name, 'k', "1HLh", 0, run->length, slots + i * size);
    }
    igpt_run_graph(call, PREFILL, &input, 1, outputs, count, run->options.canceller);
  }
  if (!was_open) igpt_close_graph(model, &model->graphs[PREFILL]); /* it is opened fast, and keeps memory */
  free(outputs), free(fed);
  return slots;
}

/* Whether the rows store what they have in common once. Where activations or slots are rounded to int8, the two decode
 * graphs may round differently: one of them for any number of rows draws the same pictures however many are drawn. */
static bool shares_prefix(const igpt_run *run) {
  const metadata *meta = &run->model->meta;
  const bool fp32 = !strcmp(meta->precision, "fp32"), int8 = !strcmp(meta->precision, "int8");
  const size_t item = igpt_item_size(meta, 'k');
  const bool rounds = int8 || (fp32 && item == 1);
  return run->length >= SHARED_PREFIX && (rounds || run->options.n >= SHARED_ROWS) && item != 2 &&
         igpt_has(run->model, DECODE_SHARED);
}

/* Makes a run ready for its first step. */
static void begin(igpt_call *call, igpt_run *run, const int64_t *primer) {
  igpt_model *model = call->model;
  const size_t rows = (size_t)run->options.n, sos = (size_t)model->meta.sos;
  run->id = shares_prefix(run) ? DECODE_SHARED : DECODE;
  run->bound = calloc(7 + 4 * (size_t)model->meta.n_layer, sizeof *run->bound);
  run->tokens = calloc(rows, sizeof *run->tokens);
  run->uniforms = calloc(rows, sizeof *run->uniforms);
  run->logits = calloc(rows, sos * sizeof *run->logits);
  if (!run->bound || !run->tokens || !run->uniforms || !run->logits) igpt_fail_memory(call);
  igpt_check_cancelled(call, run->options.canceller);
  if (call->code) return;
  for (size_t row = 0; row < rows; row++) run->tokens[row] = run->length ? primer[run->length - 1] : model->meta.sos;
  uint8_t *slots = run->length ? prefill(call, run, primer) : NULL;
  igpt_open_graph(call, run->id);
  ORT(call, CreateIoBinding(model->graphs[run->id].session, &run->binding));
  if (run->binding) model->graphs[run->id].users++;
  bind_cache(call, run, slots);
  free(slots);
  bind(call, run, "input_ids", "next_ids", 'i', "n1", run->tokens);
  bind(call, run, "uniform", NULL, 'f', "n", run->uniforms);
  bind(call, run, "past_length", NULL, 'i', "", &run->past_length);
  bind(call, run, "temperature", NULL, 'f', "", &run->temperature);
  bind(call, run, "top_k", NULL, 'i', "", &run->top_k);
  bind(call, run, "top_p", NULL, 'f', "", &run->top_p);
  bind(call, run, NULL, "logits", 'f', "nV", run->logits);
}

/* Ends a call together with its run. */
static void finish(igpt_call *call, igpt_run *run) {
  igpt_model *model = run->model;
  if (run->binding) {
    model->ort->ReleaseIoBinding(run->binding);
    model->graphs[run->id].users--;
  }
  for (size_t i = 0; i < run->bound_count; i++)
    if (run->bound[i].value) model->ort->ReleaseValue(run->bound[i].value);
  free(run->bound), free(run->cache), free(run->prefix), free(run->tokens), free(run->uniforms), free(run->logits);
  free(run);
  igpt_leave_for_good(call);
}

igpt_status igpt_start(igpt_model *model, const int64_t *primer, size_t length, const igpt_sampling_options *options,
                       igpt_run **run, igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  if (run) *run = NULL;
  if (call.code) return call.code;
  igpt_run *made = calloc(1, sizeof *made);
  if (!made) igpt_fail_memory(&call);
  if (!run || length > (size_t)model->meta.n_positions || (length && !primer))
    igpt_fail(&call, IGPT_ERROR_OPTION, "the primer has %zu tokens; give 0 .. %lld, and where the run is to be put",
              length, (long long)model->meta.n_positions);
  call.where = "the primer";
  igpt_check_tokens(&call, primer, length, IGPT_ERROR_OPTION);
  if (!call.code) igpt_resolve(&call, options, &made->options);
  if (call.code) {
    free(made);
    return igpt_leave(&call);
  }
  made->model = model;
  made->length = made->position = (int64_t)length;
  made->temperature = (float)made->options.temperature, made->top_p = (float)made->options.top_p;
  made->top_k = made->options.top_k < model->meta.sos ? made->options.top_k : model->meta.sos;
  model->references++;
  if (made->length < model->meta.n_positions) begin(&call, made, primer);
  if (call.code) {
    finish(&call, made);
    return call.code;
  }
  *run = made;
  return igpt_leave(&call);
}

static void draw(igpt_call *call, igpt_run *run) {
  igpt_model *model = call->model;
  igpt_canceller *canceller = run->options.canceller;
  const size_t rows = (size_t)run->options.n;
  call->where = model->paths[run->id] ? model->paths[run->id] : igpt_graph_names[run->id];
  call->kind = IGPT_ERROR_RUNTIME;
  run->past_length = run->position;
  for (size_t row = 0; row < rows; row++)
    run->uniforms[row] = igpt_uniform(run->options.seed, (uint32_t)row, (uint32_t)run->position);
  if (model->options.provider == IGPT_CUDA) /* which reads inputs when they are bound */
    for (size_t i = 0; i < run->bound_count; i++)
      if (*run->bound[i].name) ORT(call, BindInput(run->binding, run->bound[i].name, run->bound[i].value));
  igpt_check_cancelled(call, canceller);
  if (call->code) return;
  igpt_check_run(call, model->ort->RunWithBinding(model->graphs[run->id].session,
                                                  canceller ? canceller->options : NULL, run->binding), canceller);
  run->position++;
  igpt_check_tokens(call, run->tokens, rows, IGPT_ERROR_BUNDLE);
  if (run->position == model->meta.n_positions) /* what is no number in the cache stays so until here */
    igpt_check_finite(call, run->logits, rows * (size_t)model->meta.sos);
}

igpt_status igpt_next(igpt_run *run, igpt_step *step, igpt_error *error) {
  igpt_call call = igpt_enter(run ? run->model : NULL, error);
  if (call.code) return call.code;
  const int64_t n = run->options.n, positions = call.model->meta.n_positions;
  if (call.model->closed) igpt_fail(&call, IGPT_ERROR_STATE, "the model was closed; keep it open during a run");
  if (run->failed) igpt_fail(&call, IGPT_ERROR_STATE, "the run has failed before; start another one");
  if (!call.code && run->position == positions) {
    igpt_leave(&call);
    return IGPT_DONE;
  }
  if (!call.code) draw(&call, run);
  run->failed = call.code;
  if (step && !call.code)
    *step = (igpt_step){.position = run->position - 1, .tokens = run->tokens, .n = n,
                        .drawn = (run->position - run->length) * n, .total = (positions - run->length) * n};
  return igpt_leave(&call);
}

void igpt_finish(igpt_run **run) {
  if (!run || !*run) return;
  igpt_call call = igpt_enter((*run)->model, NULL);
  finish(&call, *run);
  *run = NULL;
}

igpt_status igpt_generate(igpt_model *model, const int64_t *primer, size_t length, const igpt_sampling_options *options,
                          igpt_on_step on_step, void *user, int64_t *tokens, size_t tokens_count, igpt_error *error) {
  igpt_run *run = NULL;
  igpt_step step;
  igpt_call call = {.error = error};
  call.code = igpt_start(model, primer, length, options, &run, error);
  if (call.code) return call.code;
  const size_t rows = (size_t)run->options.n, positions = (size_t)model->meta.n_positions;
  if (tokens && tokens_count / positions < rows)
    igpt_fail(&call, IGPT_ERROR_OPTION, "tokens has room for %zu numbers; give %zu times %zu", tokens_count, rows,
              positions);
  for (size_t row = 0; !call.code && tokens && length && row < rows; row++)
    memcpy(tokens + row * positions, primer, length * sizeof *tokens);
  while (!call.code && (call.code = igpt_next(run, &step, error)) == IGPT_OK) {
    for (size_t row = 0; tokens && row < rows; row++)
      tokens[row * positions + (size_t)step.position] = step.tokens[row];
    if (on_step && on_step(user, &step))
      igpt_fail(&call, IGPT_ERROR_CANCELLED, "the callback ended the request; begin another one");
  }
  igpt_finish(&run);
  return call.code == IGPT_DONE ? IGPT_OK : call.code;
}
