/* igpt.c - models are opened and closed, arguments checked, and pictures given to the graphs that take one. */
#include "internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE = 65535, MAX_PIXELS = 89478485 }; /* the latter as in the Python runtime and Pillow */

const char *igpt_version(void) { return IGPT_VERSION; }

/* ---- Calls ---- */

igpt_call igpt_enter(igpt_model *model, igpt_error *error) {
  igpt_call call = {.model = model, .error = error, .kind = IGPT_ERROR_RUNTIME, .where = "this call"};
  if (model)
    igpt_acquire(&model->lock);
  else
    igpt_fail(&call, IGPT_ERROR_STATE, "the handle is NULL or closed; open it first");
  return call;
}

igpt_status igpt_leave(igpt_call *call) {
  if (call->model) igpt_release(&call->model->lock);
  return call->code;
}

static void destroy(igpt_model *model) {
  for (int id = 0; id < GRAPHS; id++) {
    igpt_close_graph(model, &model->graphs[id]);
    free(model->paths[id]);
  }
  if (model->memory) model->ort->ReleaseMemoryInfo(model->memory);
  igpt_acquire(igpt_environment_lock());
  if (model->env) model->ort->ReleaseEnv(model->env);
  igpt_release(igpt_environment_lock());
  for (char **label = model->labels; label && *label; label++) free(*label);
  free(model->labels), free(model->directory), free(model->weights_path);
  igpt_lock_destroy(&model->lock);
  free(model);
}

void igpt_leave_for_good(igpt_call *call) {
  const bool last = --call->model->references == 0;
  igpt_release(&call->model->lock);
  if (last) destroy(call->model);
}

/* Whether a caller's structure is of this version. A later one that is longer will take the shorter ones, too. */
static bool check_struct(igpt_call *call, size_t size, size_t wanted, const char *what) {
  if (size != wanted)
    igpt_fail(call, IGPT_ERROR_OPTION, "%s has size %zu, not %zu; begin with its initialiser", what, size, wanted);
  return !call->code;
}

/* ---- Models ---- */

/* A model with ONNX Runtime loaded, and no graph yet. */
static igpt_call create(const igpt_open_options *options, igpt_model **model, igpt_error *error) {
  static const igpt_open_options usual = IGPT_OPEN_OPTIONS_INIT;
  igpt_call call = {.error = error, .kind = IGPT_ERROR_RUNTIME, .where = "its start"};
  if (!options) options = &usual;
  if (!model) igpt_fail(&call, IGPT_ERROR_OPTION, "model is NULL; give where the handle is to be put");
  if (model) *model = NULL;
  if (!check_struct(&call, options->size, sizeof usual, "igpt_open_options")) return call;
  if (options->threads < 0 || options->threads > 1024)
    igpt_fail(&call, IGPT_ERROR_OPTION, "threads must be 0 .. 1024, not %d", (int)options->threads);
  if (options->provider != IGPT_CPU && options->provider != IGPT_CUDA)
    igpt_fail(&call, IGPT_ERROR_OPTION, "provider must be IGPT_CPU or IGPT_CUDA, not %d", (int)options->provider);
  igpt_model *made = call.code ? NULL : calloc(1, sizeof *made);
  if (!made || !igpt_lock_init(&made->lock)) {
    free(made);
    igpt_fail_memory(&call);
    return call;
  }
  call.model = made;
  made->references = 1;
  made->options = *options;
  igpt_load(&call);
  made->options.runtime_library = NULL; /* the caller's */
  return call;
}

/* Gives the handle to the caller, or frees what was made. */
static igpt_status created(igpt_call *call, igpt_model **model) {
  if (!call->code)
    *model = call->model;
  else if (call->model)
    destroy(call->model);
  return call->code;
}

static char *joined(const char *directory, const char *name, const char *suffix) {
  const size_t size = strlen(directory) + strlen(name) + strlen(suffix) + 2;
  char *path = malloc(size);
  if (path) snprintf(path, size, "%s/%s%s", directory, name, suffix);
  return path;
}

static void open_directory(igpt_call *call) {
  igpt_model *model = call->model;
  graph first = GRAPHS;
  for (int id = GRAPHS - 1; id >= 0; id--) {
    model->paths[id] = joined(model->directory, igpt_graph_names[id], ".onnx");
    if (!model->paths[id]) igpt_fail_memory(call);
    if (!call->code && igpt_has(model, (graph)id)) first = (graph)id;
  }
  if (first == GRAPHS)
    igpt_fail(call, IGPT_ERROR_BUNDLE, "no bundle at %s: it has no graph, such as postprocess.onnx; make one with "
              "igpt-export", model->directory);
  if (!call->code) igpt_open_graph(call, first);
}

igpt_status igpt_open(const char *path, const igpt_open_options *options, igpt_model **model, igpt_error *error) {
  file_identity identity;
  igpt_call call = create(options, model, error);
  const bool directory = path && igpt_is_directory(path);
  if (!path || (!directory && igpt_look(".", path, &identity) == FILE_MISSING))
    igpt_fail(&call, IGPT_ERROR_BUNDLE, "no bundle at %s; make one with igpt-export", path ? path : "NULL");
  if (!call.code) {
    call.model->directory = directory ? igpt_copy(path, strlen(path)) : igpt_parent(path);
    if (call.model->directory) call.model->weights_path = joined(call.model->directory, WEIGHTS_FILE, "");
    if (!call.model->weights_path)
      igpt_fail_memory(&call);
    else if (directory)
      open_directory(&call);
    else
      igpt_open_single(&call, path);
  }
  return created(&call, model);
}

igpt_status igpt_open_memory(const igpt_graph *graphs, size_t count, const void *weights, size_t weights_size,
                             const igpt_open_options *options, igpt_model **model, igpt_error *error) {
  igpt_call call = create(options, model, error);
  graph first = GRAPHS;
  if (!graphs || !count || !weights != !weights_size)
    igpt_fail(&call, IGPT_ERROR_OPTION, "give at least one graph, and weights together with their size");
  if (!call.code) call.model->weights = weights, call.model->weights_size = weights_size;
  for (size_t i = 0; !call.code && i < count; i++) {
    int id = 0;
    while (id < GRAPHS && (!graphs[i].name || strcmp(graphs[i].name, igpt_graph_names[id]))) id++;
    if (id == GRAPHS || !graphs[i].data || !graphs[i].size || graphs[i].size > INT32_MAX || call.model->given[id].data)
      igpt_fail(&call, IGPT_ERROR_OPTION, "graph %zu has an unknown name, a name given before, or no data; give a name "
                "such as complete and the content of its file", i);
    else {
      call.model->given[id] = graphs[i];
      call.model->given[id].name = igpt_graph_names[id];
      if ((graph)id < first) first = (graph)id;
    }
  }
  if (!call.code) igpt_open_graph(&call, first);
  return created(&call, model);
}

void igpt_close(igpt_model **model) {
  if (!model || !*model) return;
  igpt_call call = igpt_enter(*model, NULL);
  (*model)->closed = true;
  igpt_leave_for_good(&call);
  *model = NULL;
}

igpt_status igpt_info(igpt_model *model, igpt_model_info *info, igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  if (!info) igpt_fail(&call, IGPT_ERROR_OPTION, "info is NULL; give where it is to be put");
  if (!call.code && check_struct(&call, info->size, sizeof *info, "igpt_model_info")) {
    const metadata *meta = &model->meta;
    *info = (igpt_model_info){
        .size = sizeof *info, .name = meta->name, .precision = meta->precision, .kv_cache = meta->kv_cache,
        .profile = meta->profile, .onnxruntime = model->version, .height = meta->height, .width = meta->width,
        .n_positions = meta->n_positions, .n_clusters = meta->sos, .n_layer = meta->n_layer, .n_head = meta->n_head,
        .n_embd = meta->n_head * meta->head_dim, .n_labels = meta->labels, .labels = (const char *const *)model->labels,
        .function_to_apply = meta->labels ? meta->function : NULL, .temperature = meta->temperature,
        .top_p = meta->top_p, .top_k = meta->top_k};
  }
  return igpt_leave(&call);
}

int igpt_has_graph(igpt_model *model, const char *name) {
  igpt_call call = igpt_enter(model, NULL);
  bool found = false;
  for (int id = 0; !call.code && name && id < GRAPHS; id++)
    if (!strcmp(name, igpt_graph_names[id])) found = igpt_has(model, (graph)id);
  igpt_leave(&call);
  return found;
}

/* ---- Arguments ---- */

igpt_status igpt_canceller_create(igpt_model *model, igpt_canceller **canceller, igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  igpt_canceller *made = call.code ? NULL : calloc(1, sizeof *made);
  if (!canceller) igpt_fail(&call, IGPT_ERROR_OPTION, "canceller is NULL; give where the handle is to be put");
  if (!made) igpt_fail_memory(&call);
  if (!call.code) made->ort = model->ort;
  if (!call.code) ORT(&call, CreateRunOptions(&made->options));
  if (canceller) *canceller = call.code ? NULL : made;
  if (call.code) free(made);
  return igpt_leave(&call);
}

void igpt_cancel(igpt_canceller *canceller) {
  if (!canceller) return;
  igpt_flag_set(&canceller->cancelled); /* first, so that a run that ends is known to be cancelled */
  OrtStatus *status = canceller->ort->RunOptionsSetTerminate(canceller->options);
  if (status) canceller->ort->ReleaseStatus(status);
}

void igpt_canceller_free(igpt_canceller **canceller) {
  if (!canceller || !*canceller) return;
  (*canceller)->ort->ReleaseRunOptions((*canceller)->options);
  free(*canceller);
  *canceller = NULL;
}

void igpt_resolve(igpt_call *call, const igpt_sampling_options *options, igpt_sampling_options *resolved) {
  static const igpt_sampling_options usual = IGPT_SAMPLING_OPTIONS_INIT;
  const metadata *meta = &call->model->meta;
  if (!options) options = &usual;
  *resolved = usual;
  if (!check_struct(call, options->size, sizeof usual, "igpt_sampling_options")) return;
  *resolved = *options;
  if (resolved->temperature == IGPT_RECOMMENDED) resolved->temperature = meta->temperature;
  if (resolved->top_k == IGPT_RECOMMENDED) resolved->top_k = meta->top_k;
  if (resolved->top_p == IGPT_RECOMMENDED) resolved->top_p = meta->top_p;
  if (resolved->n < 1 || resolved->n > MAX_N)
    igpt_fail(call, IGPT_ERROR_OPTION, "n must be 1 .. %d, not %lld", (int)MAX_N, (long long)resolved->n);
  if (!(resolved->temperature >= 0) || !isfinite(resolved->temperature))
    igpt_fail(call, IGPT_ERROR_OPTION, "temperature must be finite and at least 0, not %g", resolved->temperature);
  if (resolved->top_k < 0)
    igpt_fail(call, IGPT_ERROR_OPTION, "top_k must be at least 0 (0 is off), not %lld", (long long)resolved->top_k);
  if (!(resolved->top_p > 0 && resolved->top_p <= 1))
    igpt_fail(call, IGPT_ERROR_OPTION, "top_p must be above 0 and at most 1 (1 is off), not %g", resolved->top_p);
  /* What float32 cannot hold becomes the nearest that it can. */
  if (resolved->temperature > (double)FLT_MAX) resolved->temperature = (double)FLT_MAX;
}

static void check_room(igpt_call *call, size_t room, size_t needed, const char *what) {
  if (room < needed)
    igpt_fail(call, IGPT_ERROR_OPTION, "%s has room for %zu numbers; give room for %zu", what, room, needed);
}

static void check_image(igpt_call *call, const igpt_image *image) {
  static const igpt_image none;
  if (!image) image = &none;
  const int64_t height = image->height, width = image->width;
  if (!image->data || height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE || height * width > MAX_PIXELS)
    igpt_fail(call, IGPT_ERROR_IMAGE, "the picture is NULL or of %lldx%lld pixels; give 1 .. %d a side and at most "
              "%d in all", (long long)width, (long long)height, (int)MAX_SIDE, (int)MAX_PIXELS);
  else if (image->size != (size_t)(3 * height * width) && image->size != (size_t)(4 * height * width))
    igpt_fail(call, IGPT_ERROR_IMAGE, "the picture has %zu bytes for %lldx%lld pixels; give 3 a pixel, or 4 with alpha",
              image->size, (long long)width, (long long)height);
}

/* What igpt_complete and igpt_complete_steps are asked for. */
static void check_request(igpt_call *call, const igpt_sampling_options *options, igpt_sampling_options *resolved,
                          const igpt_image *image, int64_t keep_rows, const uint8_t *images, size_t images_size,
                          const int64_t *tokens, size_t tokens_count) {
  if (call->code) return;
  const metadata *meta = &call->model->meta;
  igpt_resolve(call, options, resolved);
  check_image(call, image);
  if (keep_rows < 0 || keep_rows >= meta->height)
    igpt_fail(call, IGPT_ERROR_OPTION, "keep_rows must be 0 .. %lld, not %lld", (long long)meta->height - 1,
              (long long)keep_rows);
  if (!images && !tokens) igpt_fail(call, IGPT_ERROR_OPTION, "images and tokens are both NULL; give room for one");
  if (images) check_room(call, images_size, igpt_size(call, 'u', "nyx3", resolved->n, 0), "images");
  if (tokens) check_room(call, tokens_count, igpt_size(call, 'i', "nP", resolved->n, 0) / sizeof *tokens, "tokens");
}

/* ---- Pictures ---- */

/* A picture as RGB, to be freed if it is new. Alpha is laid over white: floor((c a + 255 (255 - a)) / 255 + 0.5). */
static const uint8_t *as_rgb(igpt_call *call, const igpt_image *image) {
  const size_t pixels = (size_t)(image->height * image->width);
  if (image->size == 3 * pixels) return image->data;
  uint8_t *rgb = malloc(3 * pixels);
  if (!rgb) igpt_fail_memory(call);
  for (size_t i = 0; rgb && i < 3 * pixels; i++) {
    const uint8_t *pixel = image->data + i / 3 * 4;
    rgb[i] = (uint8_t)((2u * (pixel[i % 3] * pixel[3] + 255u * (255u - pixel[3])) + 255u) / 510u);
  }
  return rgb;
}

/* Runs a graph that takes a picture. inputs: with room for the picture in front. */
static void run_image(igpt_call *call, graph id, const igpt_image *image, tensor *inputs, size_t count, tensor *outputs,
                      size_t output_count, igpt_canceller *canceller) {
  const uint8_t *rgb = as_rgb(call, image);
  igpt_tensor(call, &inputs[0], "image", 'u', "nL3", image->height, image->width, rgb);
  igpt_run_graph(call, id, inputs, count, outputs, output_count, canceller);
  if (rgb != image->data) free((void *)rgb);
}

/* Runs a graph that makes numbers of a picture. */
static void measure(igpt_call *call, graph id, const igpt_image *image, const char *name, char type, const char *shape,
                    void *to, size_t room) {
  tensor input, output;
  if (call->code) return;
  check_image(call, image);
  const size_t size = igpt_size(call, type, shape, 0, 0);
  check_room(call, to ? room : 0, size / igpt_item_size(&call->model->meta, type), name);
  if (call->code) return;
  igpt_tensor(call, &output, name, type, shape, 0, 0, to);
  run_image(call, id, image, &input, 1, &output, 1, NULL);
}

igpt_status igpt_complete(igpt_model *model, const igpt_image *image, int64_t keep_rows,
                          const igpt_sampling_options *options, uint8_t *images, size_t images_size, int64_t *tokens,
                          size_t tokens_count, igpt_error *error) {
  igpt_sampling_options resolved;
  igpt_call call = igpt_enter(model, error);
  check_request(&call, options, &resolved, image, keep_rows, images, images_size, tokens, tokens_count);
  if (!call.code) {
    const float temperature = (float)resolved.temperature, top_p = (float)resolved.top_p;
    tensor inputs[7], outputs[2], *output = outputs;
    igpt_tensor(&call, &inputs[1], "keep_rows", 'i', "", 0, 0, &keep_rows);
    igpt_tensor(&call, &inputs[2], "n", 'i', "", 0, 0, &resolved.n);
    igpt_tensor(&call, &inputs[3], "seed", 'i', "", 0, 0, &resolved.seed); /* its 64 bits */
    igpt_tensor(&call, &inputs[4], "top_k", 'i', "", 0, 0, &resolved.top_k);
    igpt_tensor(&call, &inputs[5], "temperature", 'f', "", 0, 0, &temperature);
    igpt_tensor(&call, &inputs[6], "top_p", 'f', "", 0, 0, &top_p);
    if (images) igpt_tensor(&call, output++, "images", 'u', "nyx3", resolved.n, 0, images);
    if (tokens) igpt_tensor(&call, output++, "tokens", 'i', "nP", resolved.n, 0, tokens);
    run_image(&call, COMPLETE, image, inputs, 7, outputs, (size_t)(output - outputs), resolved.canceller);
  }
  return igpt_leave(&call);
}

igpt_status igpt_classify(igpt_model *model, const igpt_image *image, float *values, size_t count, igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  if (!call.code && !model->meta.labels)
    igpt_fail(&call, IGPT_ERROR_BUNDLE, "the model %s has no classifier; open one that has", model->meta.name);
  if (!call.code)
    measure(&call, CLASSIFY, image, strcmp(model->meta.function, "none") ? "probabilities" : "values", 'f', "C", values,
            count);
  return igpt_leave(&call);
}

igpt_status igpt_features(igpt_model *model, const igpt_image *image, float *features, size_t count,
                          igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  measure(&call, FEATURES, image, "features", 'f', "FD", features, count);
  return igpt_leave(&call);
}

igpt_status igpt_score(igpt_model *model, const igpt_image *image, float *nats, size_t count, double *nats_per_token,
                       igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  check_image(&call, image);
  if (!call.code && nats) check_room(&call, count, (size_t)model->meta.n_positions, "nats");
  if (!call.code) {
    float mean = 0;
    tensor input, outputs[2];
    igpt_tensor(&call, &outputs[0], "nats_per_token", 'f', "", 0, 0, &mean);
    if (nats) igpt_tensor(&call, &outputs[1], "nats", 'f', "yx", 0, 0, nats);
    run_image(&call, SCORE, image, &input, 1, outputs, nats ? 2 : 1, NULL);
    if (!call.code && nats_per_token) *nats_per_token = (double)mean;
  }
  return igpt_leave(&call);
}

igpt_status igpt_tokens(igpt_model *model, const igpt_image *image, int64_t *tokens, size_t count, igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  measure(&call, PREPROCESS, image, "tokens", 'i', "P", tokens, count);
  return igpt_leave(&call);
}

igpt_status igpt_images(igpt_model *model, const int64_t *tokens, size_t n, uint8_t *images, size_t images_size,
                        igpt_error *error) {
  igpt_call call = igpt_enter(model, error);
  if (!tokens || !images || n < 1 || n > MAX_N)
    igpt_fail(&call, IGPT_ERROR_OPTION, "n must be 1 .. %d, not %zu, and tokens and images not NULL", (int)MAX_N, n);
  if (!call.code) {
    tensor input, output;
    check_room(&call, images_size, igpt_size(&call, 'u', "nyx3", (int64_t)n, 0), "images");
    call.where = "tokens";
    igpt_check_tokens(&call, tokens, n * (size_t)model->meta.n_positions, IGPT_ERROR_OPTION);
    igpt_tensor(&call, &input, "tokens", 'i', "nP", (int64_t)n, 0, tokens);
    igpt_tensor(&call, &output, "images", 'u', "nyx3", (int64_t)n, 0, images);
    igpt_run_graph(&call, POSTPROCESS, &input, 1, &output, 1, NULL);
  }
  return igpt_leave(&call);
}

igpt_status igpt_complete_steps(igpt_model *model, const igpt_image *image, int64_t keep_rows,
                                const igpt_sampling_options *options, igpt_on_step on_step, void *user, uint8_t *images,
                                size_t images_size, int64_t *tokens, size_t tokens_count, igpt_error *error) {
  igpt_sampling_options resolved;
  igpt_call call = igpt_enter(model, error);
  check_request(&call, options, &resolved, image, keep_rows, images, images_size, tokens, tokens_count);
  igpt_status code = igpt_leave(&call);
  if (code) return code;
  const size_t positions = (size_t)model->meta.n_positions, n = (size_t)resolved.n;
  int64_t *primer = malloc(positions * sizeof *primer);
  int64_t *drawn = tokens ? tokens : malloc(n * positions * sizeof *drawn);
  if (!primer || !drawn) igpt_fail_memory(&call);
  code = call.code;
  if (!code && keep_rows) code = igpt_tokens(model, image, primer, positions, error);
  if (!code)
    code = igpt_generate(model, primer, (size_t)(keep_rows * model->meta.width), &resolved, on_step, user, drawn,
                         n * positions, error);
  if (!code && images) code = igpt_images(model, drawn, n, images, images_size, error);
  free(primer);
  if (!tokens) free(drawn);
  return code;
}
