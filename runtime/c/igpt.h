/* igpt.h - runs an ImageGPT bundle: completes, draws, classifies and scores pictures. C11.
 *
 * A bundle is a directory of ONNX graphs, as runtime/SPEC.md describes it. The only dependency is ONNX Runtime's shared
 * library, 1.18 or newer, which is opened at run time.
 *
 *   igpt_error error;
 *   igpt_model *model = NULL;
 *   if (igpt_open("bundle", NULL, &model, &error) != IGPT_OK) puts(error.message);
 *
 * Errors. A function that can fail returns an igpt_status. On failure it writes one line of text into `error`, which
 * belongs to the caller and may be NULL. What else it gives is then undefined, and handles are NULL.
 *
 * Threads. Any number of threads may use one model. Their calls wait for each other; draw in several threads at once
 * with a model for each. Only igpt_close must not run beside other calls on the same model. No callback is called while
 * a model is locked, so that it may use the model.
 *
 * Texts are UTF-8 and end with a zero. Arrays are dense, the last dimension first in memory. */
#ifndef IGPT_H
#define IGPT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(IGPT_SHARED)
#ifdef IGPT_BUILDING
#define IGPT_API __declspec(dllexport)
#else
#define IGPT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define IGPT_API __attribute__((visibility("default")))
#else
#define IGPT_API
#endif

#define IGPT_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors ---- */

typedef enum igpt_status {
  IGPT_OK = 0,
  IGPT_DONE = 1,            /* igpt_next: every position is drawn; not an error */
  IGPT_ERROR_OPTION = 2,    /* an option is out of range or does not fit the bundle, or a buffer is too small */
  IGPT_ERROR_IMAGE = 3,     /* what was given is no picture */
  IGPT_ERROR_BUNDLE = 4,    /* a bundle is missing, damaged, of an unknown version, or lacks what was asked of it */
  IGPT_ERROR_RUNTIME = 5,   /* ONNX Runtime or a provider of it is missing, is too old, or failed */
  IGPT_ERROR_MEMORY = 6,    /* there is not enough memory */
  IGPT_ERROR_CANCELLED = 7, /* igpt_cancel was called, or a callback ended the request */
  IGPT_ERROR_STATE = 8      /* a model or a run is NULL, closed or failed earlier */
} igpt_status;

typedef struct igpt_error {
  igpt_status status;
  char message[1024]; /* one line: what, where, and what to do */
} igpt_error;

/* The version of this library, such as "0.1.0". */
IGPT_API const char *igpt_version(void);

/* ---- Models ---- */

typedef struct igpt_model igpt_model;

typedef enum igpt_provider { IGPT_CPU = 0, IGPT_CUDA = 1 } igpt_provider;

/* How to open a model. Begin with IGPT_OPEN_OPTIONS_INIT, so that fields of later versions get their defaults. */
typedef struct igpt_open_options {
  size_t size;             /* sizeof(igpt_open_options) */
  const char *runtime_library; /* path of ONNX Runtime's shared library; NULL or "": the system finds it by its name */
  int32_t threads;         /* inside one operator; 0: ONNX Runtime's choice, one per physical core */
  int32_t spinning;        /* not 0: idle threads wait busily, which is faster where nothing else runs */
  int32_t provider;        /* an igpt_provider */
  int32_t no_memory_arena; /* not 0: freed memory of the CPU goes back to the system at once, which is slower */
  int32_t no_verify;       /* not 0: the weights are not compared with the SHA-256 that the graphs name */
} igpt_open_options;

#define IGPT_OPEN_OPTIONS_INIT {sizeof(igpt_open_options), NULL, 0, 0, IGPT_CPU, 0, 0}

/* A graph in memory. */
typedef struct igpt_graph {
  const char *name; /* such as "complete" */
  const void *data; /* the content of its .onnx file */
  size_t size;      /* bytes */
} igpt_graph;

/* Opens a bundle's directory, or the file of one graph that holds its weights. Graphs are opened when first needed.
 *
 * options: NULL is IGPT_OPEN_OPTIONS_INIT.
 * Errors: OPTION, BUNDLE, RUNTIME, MEMORY. */
IGPT_API igpt_status igpt_open(const char *path, const igpt_open_options *options, igpt_model **model,
                               igpt_error *error);

/* Opens graphs that are in memory. Nothing is read from files. What is given must stay in place until igpt_close.
 *
 * weights: the content of weights.safetensors; NULL if the graphs hold their weights or have none. */
IGPT_API igpt_status igpt_open_memory(const igpt_graph *graphs, size_t count, const void *weights, size_t weights_size,
                                      const igpt_open_options *options, igpt_model **model, igpt_error *error);

/* Closes a model and sets the handle to NULL. Runs of it fail from then on, and must still be finished. */
IGPT_API void igpt_close(igpt_model **model);

/* What a model says of itself. Texts live until igpt_close. */
typedef struct igpt_model_info {
  size_t size;                   /* sizeof(igpt_model_info), set by the caller */
  const char *name;
  const char *precision;         /* "fp32", "int8", "int4" or "fp16" */
  const char *kv_cache;          /* "fp32", "int8" or "fp16" */
  const char *profile;           /* "fused" or "portable" */
  const char *onnxruntime;       /* version of the library that runs it */
  int64_t height, width;         /* of its pictures, in pixels */
  int64_t n_positions;           /* tokens of a picture, height x width */
  int64_t n_clusters;            /* colours; tokens are 0 .. n_clusters - 1 */
  int64_t n_layer, n_head, n_embd;
  int64_t n_labels;              /* classes; 0 without a classifier */
  const char *const *labels;     /* [n_labels] */
  const char *function_to_apply; /* "softmax" or "sigmoid" gives probabilities, "none" values; NULL: no classifier */
  double temperature, top_p;     /* the recommended sampling */
  int64_t top_k;
} igpt_model_info;

#define IGPT_MODEL_INFO_INIT \
  {sizeof(igpt_model_info), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, 0}

IGPT_API igpt_status igpt_info(igpt_model *model, igpt_model_info *info, igpt_error *error);

/* Whether a model has a graph, such as "complete": 1 or 0. A NULL model has none. */
IGPT_API int igpt_has_graph(igpt_model *model, const char *name);

/* ---- Requests ---- */

/* A picture of any size, rows from the top, 8 bits a channel, at most 65535 pixels a side and 89,478,485 in all. */
typedef struct igpt_image {
  const uint8_t *data;
  size_t size;           /* bytes: height x width x 3 is RGB, x 4 is RGBA, which is laid over white */
  int64_t height, width; /* pixels, at least 1 */
} igpt_image;

/* Ends requests from another thread. Once cancelled it stays so: make a new one for the next request. */
typedef struct igpt_canceller igpt_canceller;

IGPT_API igpt_status igpt_canceller_create(igpt_model *model, igpt_canceller **canceller, igpt_error *error);

/* Ends the requests that were given this canceller with IGPT_ERROR_CANCELLED, within a step. From any thread. */
IGPT_API void igpt_cancel(igpt_canceller *canceller);

/* Frees a canceller, after the requests that were given it, and sets the handle to NULL. The model may be closed. */
IGPT_API void igpt_canceller_free(igpt_canceller **canceller);

#define IGPT_RECOMMENDED (-1048576) /* the model's own choice, see igpt_model_info */

/* How to draw. Begin with IGPT_SAMPLING_OPTIONS_INIT. The same seed gives the same pictures, however many are drawn;
 * SPEC section 5 says where rounding may change this. */
typedef struct igpt_sampling_options {
  size_t size;               /* sizeof(igpt_sampling_options) */
  int64_t n;                 /* pictures, 1 .. 65536; all are drawn at once, so memory grows with it */
  uint64_t seed;
  double temperature;        /* divides the logits, finite and at least 0; 0 always takes the likeliest token */
  int64_t top_k;             /* draw among so many likeliest tokens; 0 is off */
  double top_p;              /* draw among the likeliest tokens that reach it together, above 0, at most 1; 1 is off */
  igpt_canceller *canceller; /* or NULL */
} igpt_sampling_options;

#define IGPT_SAMPLING_OPTIONS_INIT \
  {sizeof(igpt_sampling_options), 8, 0, IGPT_RECOMMENDED, IGPT_RECOMMENDED, IGPT_RECOMMENDED, NULL}

/* Keeps the top rows of a picture and draws the rest n times, in one call of the graph `complete`.
 *
 * keep_rows: 0 .. height - 1 of the model's picture; 0 draws from nothing.
 * options: NULL is IGPT_SAMPLING_OPTIONS_INIT, here and below.
 * images: uint8 [n, height, width, 3] or NULL; images_size: its bytes.
 * tokens: int64 [n, n_positions] or NULL; tokens_count: its numbers.
 * Errors: OPTION, IMAGE, BUNDLE, RUNTIME, MEMORY, CANCELLED, STATE. */
IGPT_API igpt_status igpt_complete(igpt_model *model, const igpt_image *image, int64_t keep_rows,
                                   const igpt_sampling_options *options, uint8_t *images, size_t images_size,
                                   int64_t *tokens, size_t tokens_count, igpt_error *error);

/* The probability of each label, or values of a regression: float32 [n_labels], in the order of the labels. */
IGPT_API igpt_status igpt_classify(igpt_model *model, const igpt_image *image, float *values, size_t count,
                                   igpt_error *error);

/* Hidden states, averaged over the picture: float32 [n_layer + 1, n_embd]. */
IGPT_API igpt_status igpt_features(igpt_model *model, const igpt_image *image, float *features, size_t count,
                                   igpt_error *error);

/* Minus the log-likelihood of each token in nats, float32 [height, width], and their mean. Both may be NULL. */
IGPT_API igpt_status igpt_score(igpt_model *model, const igpt_image *image, float *nats, size_t count,
                                double *nats_per_token, igpt_error *error);

/* The tokens of a picture: int64 [n_positions]. */
IGPT_API igpt_status igpt_tokens(igpt_model *model, const igpt_image *image, int64_t *tokens, size_t count,
                                 igpt_error *error);

/* Pictures of tokens: from int64 [n, n_positions] to uint8 [n, height, width, 3]. */
IGPT_API igpt_status igpt_images(igpt_model *model, const int64_t *tokens, size_t n, uint8_t *images,
                                 size_t images_size, igpt_error *error);

/* ---- Drawing token by token ---- */

typedef struct igpt_step {
  int64_t position;      /* that was drawn, in raster order from 0 */
  const int64_t *tokens; /* [n], one for each picture; until the run's next step or its end */
  int64_t n;
  int64_t drawn, total;  /* tokens so far, and tokens in all, of all pictures together */
} igpt_step;

/* A request for pictures that is drawn one position after the other. One thread at a time may use a run. */
typedef struct igpt_run igpt_run;

/* Begins to draw what follows the first tokens of a picture.
 *
 * primer: int64 [length], without sos; length 0 .. n_positions, and 0 draws from nothing.
 * Errors: OPTION, BUNDLE, RUNTIME, MEMORY, CANCELLED, STATE. */
IGPT_API igpt_status igpt_start(igpt_model *model, const int64_t *primer, size_t length,
                                const igpt_sampling_options *options, igpt_run **run, igpt_error *error);

/* Draws the next position of all pictures. IGPT_DONE if there is none left. After an error a run draws no more. */
IGPT_API igpt_status igpt_next(igpt_run *run, igpt_step *step, igpt_error *error);

/* Frees a run, wherever it is, and sets the handle to NULL. */
IGPT_API void igpt_finish(igpt_run **run);

/* Called after each step. Not 0 ends the request with IGPT_ERROR_CANCELLED. */
typedef int (*igpt_on_step)(void *user, const igpt_step *step);

/* igpt_start, igpt_next to the end, and igpt_finish.
 *
 * tokens: int64 [n, n_positions] or NULL, the primer included. on_step: may be NULL. */
IGPT_API igpt_status igpt_generate(igpt_model *model, const int64_t *primer, size_t length,
                                   const igpt_sampling_options *options, igpt_on_step on_step, void *user,
                                   int64_t *tokens, size_t tokens_count, igpt_error *error);

/* As igpt_complete, step by step, with the graphs `preprocess`, `prefill`, `decode` and `postprocess`. */
IGPT_API igpt_status igpt_complete_steps(igpt_model *model, const igpt_image *image, int64_t keep_rows,
                                         const igpt_sampling_options *options, igpt_on_step on_step, void *user,
                                         uint8_t *images, size_t images_size, int64_t *tokens, size_t tokens_count,
                                         igpt_error *error);

/* The random number in [0, 1) of a sample at a position: SPEC section 5. */
IGPT_API float igpt_uniform(uint64_t seed, uint32_t sample, uint32_t position);

#ifdef __cplusplus
}
#endif
#endif
