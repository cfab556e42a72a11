/* igpt_c.c - igpt-c: completes, draws, classifies and scores pictures from the command line.
 *
 *   igpt-c complete in.png -o out.png --bundle DIR [--keep ROWS] [-n N] [--seed N] [--temperature T] [--top-k K] ...
 *
 * Pictures are PNG (libpng) or PPM files. The n pictures of a request are written side by side into one file. */
#define _POSIX_C_SOURCE 200809L
#include <igpt.h>

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: igpt-c complete PICTURE -o OUT   keeps the top of a picture and draws the rest\n"
    "       igpt-c sample -o OUT             draws from nothing\n"
    "       igpt-c classify|score PICTURE    prints classes, or nats per token\n"
    "       igpt-c info                      prints what the model is\n"
    "  --bundle DIR         bundle, or single graph; by default $IGPT_BUNDLE\n"
    "  --library PATH       ONNX Runtime's shared library; by default $IGPT_ORT_LIBRARY, or where the system has it\n"
    "  -o FILE              .png or .ppm\n"
    "  -n N --seed N --keep ROWS --temperature T --top-k K --top-p P\n"
    "                       by default 4 pictures, seed 0, the top half, and the model's recommended sampling\n"
    "  --steps              draws token by token and shows progress\n"
    "  --threads N --spin --cuda --no-verify\n";

static int fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("igpt-c: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  return 1;
}

/* ---- Picture files ---- */

/* A picture in memory of its own: RGB or RGBA. */
typedef struct picture {
  uint8_t *data;
  size_t width, height, channels;
} picture;

/* 16 bits to 8 as in SPEC section 6. */
static void reduce(uint8_t *data, size_t count, int grey) {
  for (size_t i = 0; i < count; i++) {
    const unsigned level = (unsigned)data[2 * i] << 8 | data[2 * i + 1];
    data[i] = (uint8_t)(grey ? (level + 128) / 257 : level / 256);
  }
}

/* The reason of a failure, where a jump leads to. */
typedef struct png_failure {
  jmp_buf jump;
  char reason[200];
} png_failure;

static void on_png_error(png_structp png, png_const_charp reason) {
  png_failure *failure = png_get_error_ptr(png);
  snprintf(failure->reason, sizeof failure->reason, "%s", reason);
  longjmp(failure->jump, 1);
}

static void on_png_warning(png_structp png, png_const_charp reason) { (void)png, (void)reason; }

static int read_png(const char *path, FILE *file, picture *made) {
  png_failure failure;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &failure, on_png_error, on_png_warning);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  png_bytep *volatile rows = NULL;
  int failed = info == NULL;
  snprintf(failure.reason, sizeof failure.reason, "no memory is left");
  if (info && !setjmp(failure.jump)) {
    png_init_io(png, file);
    png_set_user_limits(png, 65535, 65535);
    png_read_info(png, info);
    const size_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    const int grey = png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY && !png_get_valid(png, info, PNG_INFO_tRNS);
    const int deep = png_get_bit_depth(png, info) == 16;
    png_set_expand(png); /* palettes, few bits and tRNS; colour profiles are ignored */
    png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    const size_t channels = png_get_channels(png, info), row_size = png_get_rowbytes(png, info);
    if (width * height > 89478485) png_error(png, "it has too many pixels; make it smaller first");
    made->data = malloc(row_size * height);
    rows = malloc(height * sizeof *rows);
    if (!made->data || !rows) png_error(png, "no memory is left");
    for (size_t y = 0; y < height; y++) rows[y] = made->data + y * row_size;
    png_read_image(png, rows);
    png_read_end(png, NULL);
    if (deep) reduce(made->data, width * height * channels, grey);
    made->width = width, made->height = height, made->channels = channels;
  } else
    failed = 1;
  free(rows);
  png_destroy_read_struct(&png, &info, NULL);
  return failed ? fail("%s cannot be read as PNG: %s", path, failure.reason) : 0;
}

static int read_ppm(const char *path, FILE *file, picture *made) {
  unsigned width, height, levels;
  if (fscanf(file, "P6 %5u %5u %3u", &width, &height, &levels) != 3 || fgetc(file) == EOF || levels != 255 || !width ||
      !height || (size_t)width * height > 89478485)
    return fail("%s is neither a PNG nor a PPM file (P6, 255 levels) of a sensible size", path);
  const size_t size = (size_t)3 * width * height;
  *made = (picture){malloc(size), width, height, 3};
  if (!made->data) return fail("no memory is left for %s", path);
  return fread(made->data, 1, size, file) == size ? 0 : fail("%s is cut short", path);
}

static int read_picture(const char *path, picture *made) {
  FILE *file = fopen(path, "rb");
  if (!file) return fail("%s cannot be read: %s", path, strerror(errno));
  const int first = getc(file);
  rewind(file);
  const int failed = first == 0x89 ? read_png(path, file, made) : read_ppm(path, file, made);
  fclose(file);
  return failed;
}

/* Writes n pictures side by side. */
static int write_pictures(const char *path, const uint8_t *images, size_t n, size_t height, size_t width) {
  const size_t row = 3 * width;
  uint8_t *sheet = malloc(n * row * height);
  if (!sheet) return fail("no memory is left for %s", path);
  for (size_t i = 0; i < n; i++)
    for (size_t y = 0; y < height; y++) memcpy(sheet + (y * n + i) * row, images + (i * height + y) * row, row);
  const char *suffix = strrchr(path, '.');
  int written;
  if (suffix && !strcmp(suffix, ".ppm")) {
    FILE *file = fopen(path, "wb");
    written = file && fprintf(file, "P6 %zu %zu 255\n", n * width, height) > 0 &&
              fwrite(sheet, 1, n * row * height, file) == n * row * height;
    if (file && fclose(file)) written = 0;
  } else {
    png_image about = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB};
    about.width = (png_uint_32)(n * width), about.height = (png_uint_32)height;
    written = png_image_write_to_file(&about, path, 0, sheet, 0, NULL);
  }
  free(sheet);
  return written ? 0 : fail("%s cannot be written", path);
}

/* ---- Arguments ---- */

typedef struct arguments {
  const char *command, *picture, *out, *bundle;
  int64_t keep, threads;
  int steps;
  igpt_open_options open;
  igpt_sampling_options sampling;
} arguments;

/* Whether a text was a number up to its end. */
static int check_number(const char *option, const char *text, const char *end) {
  return *text && !*end && !errno ? 0 : fail("%s needs a number, not %s", option, text);
}

static int read_integer(const char *option, const char *text, int64_t *number) {
  char *end = "?";
  errno = 0;
  if (text) *number = strtoll(text, &end, 10);
  return check_number(option, text ? text : "", end);
}

static int read_seed(const char *option, const char *text, uint64_t *number) {
  char *end = "?";
  errno = 0;
  if (text && *text != '-') *number = strtoull(text, &end, 10);
  return check_number(option, text ? text : "", end);
}

static int read_real(const char *option, const char *text, double *number) {
  char *end = "?";
  errno = 0;
  if (text) *number = strtod(text, &end);
  return check_number(option, text ? text : "", end);
}

static int parse(int count, char **values, arguments *a) {
  *a = (arguments){.bundle = getenv("IGPT_BUNDLE"), .keep = -1, .open = IGPT_OPEN_OPTIONS_INIT,
                   .sampling = IGPT_SAMPLING_OPTIONS_INIT};
  a->open.runtime_library = getenv("IGPT_ORT_LIBRARY");
  a->sampling.n = 4;
  for (int i = 1; i < count; i++) {
    const char *name = values[i], *value = i + 1 < count ? values[i + 1] : NULL;
    int failed = 0, used = 1;
    if (!strcmp(name, "-o")) a->out = value;
    else if (!strcmp(name, "--bundle")) a->bundle = value;
    else if (!strcmp(name, "--library")) a->open.runtime_library = value;
    else if (!strcmp(name, "-n")) failed = read_integer(name, value, &a->sampling.n);
    else if (!strcmp(name, "--seed")) failed = read_seed(name, value, &a->sampling.seed);
    else if (!strcmp(name, "--keep")) failed = read_integer(name, value, &a->keep);
    else if (!strcmp(name, "--temperature")) failed = read_real(name, value, &a->sampling.temperature);
    else if (!strcmp(name, "--top-k")) failed = read_integer(name, value, &a->sampling.top_k);
    else if (!strcmp(name, "--top-p")) failed = read_real(name, value, &a->sampling.top_p);
    else if (!strcmp(name, "--threads")) failed = read_integer(name, value, &a->threads);
    else {
      used = 0;
      if (!strcmp(name, "--steps")) a->steps = 1;
      else if (!strcmp(name, "--spin")) a->open.spinning = 1;
      else if (!strcmp(name, "--cuda")) a->open.provider = IGPT_CUDA;
      else if (!strcmp(name, "--no-verify")) a->open.no_verify = 1;
      else if (*name == '-') return fail("unknown option %s; igpt-c --help lists them", name);
      else if (!a->command) a->command = name;
      else if (!a->picture) a->picture = name;
      else return fail("%s is one argument too many", name);
    }
    if (failed) return failed;
    if (used && !value) return fail("%s needs a value", name);
    i += used;
  }
  a->open.threads = a->threads < 0 || a->threads > INT32_MAX ? -1 : (int32_t)a->threads;
  return 0;
}

/* ---- Commands ---- */

static int show_step(void *user, const igpt_step *step) {
  (void)user;
  fprintf(stderr, "\r%lld of %lld tokens", (long long)step->drawn, (long long)step->total);
  if (step->drawn == step->total) fputc('\n', stderr);
  return 0;
}

/* image: NULL to draw from nothing. */
static int draw(igpt_model *model, const igpt_model_info *info, const arguments *a, const igpt_image *image,
                igpt_error *error) {
  /* The library refuses other numbers. */
  const size_t n = a->sampling.n < 1 || a->sampling.n > 65536 ? 1 : (size_t)a->sampling.n;
  const size_t size = n * 3 * (size_t)info->n_positions;
  const int64_t keep = image ? (a->keep < 0 ? info->height / 2 : a->keep) : 0;
  const uint8_t black[3] = {0};
  const igpt_image nothing = {black, 3, 1, 1};
  if (!a->out) return fail("give a file to write with -o");
  uint8_t *images = malloc(size);
  if (!images) return fail("no memory is left; ask for fewer pictures");
  if (!image) image = &nothing;
  igpt_status status;
  if (a->steps || !igpt_has_graph(model, "complete"))
    status = igpt_complete_steps(model, image, keep, &a->sampling, a->steps ? show_step : NULL, NULL, images, size,
                                 NULL, 0, error);
  else
    status = igpt_complete(model, image, keep, &a->sampling, images, size, NULL, 0, error);
  int failed = status ? fail("%s", error->message) : 0;
  if (!failed) failed = write_pictures(a->out, images, n, (size_t)info->height, (size_t)info->width);
  free(images);
  return failed;
}

static int classify(igpt_model *model, const igpt_model_info *info, const igpt_image *image, igpt_error *error) {
  const size_t count = (size_t)info->n_labels;
  float *values = calloc(count + 1, sizeof *values);
  if (!values) return fail("no memory is left");
  const igpt_status status = igpt_classify(model, image, values, count, error);
  for (size_t i = 0; !status && i < count; i++) printf("%.6f %s\n", (double)values[i], info->labels[i]);
  free(values);
  return status ? fail("%s", error->message) : 0;
}

static int score(igpt_model *model, const igpt_image *image, igpt_error *error) {
  double mean;
  if (igpt_score(model, image, NULL, 0, &mean, error)) return fail("%s", error->message);
  printf("%.6f nats per token\n", mean);
  return 0;
}

static int show(const igpt_model_info *info) {
  printf("%s: %lldx%lld pixels, %lld colours, %lld layers, width %lld, %s, cache %s, %lld labels; ONNX Runtime %s\n",
         info->name, (long long)info->width, (long long)info->height, (long long)info->n_clusters,
         (long long)info->n_layer, (long long)info->n_embd, info->precision, info->kv_cache, (long long)info->n_labels,
         info->onnxruntime);
  return 0;
}

static int run(igpt_model *model, const arguments *a) {
  igpt_error error;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  if (igpt_info(model, &info, &error)) return fail("%s", error.message);
  if (!strcmp(a->command, "info")) return show(&info);
  if (!strcmp(a->command, "sample")) return draw(model, &info, a, NULL, &error);
  picture given = {0};
  int failed = a->picture ? read_picture(a->picture, &given) : fail("give a picture");
  const size_t size = given.width * given.height * given.channels;
  const igpt_image image = {given.data, size, (int64_t)given.height, (int64_t)given.width};
  if (failed) {
  } else if (!strcmp(a->command, "complete"))
    failed = draw(model, &info, a, &image, &error);
  else if (!strcmp(a->command, "classify"))
    failed = classify(model, &info, &image, &error);
  else if (!strcmp(a->command, "score"))
    failed = score(model, &image, &error);
  else
    failed = fail("unknown command %s; igpt-c --help lists them", a->command);
  free(given.data);
  return failed;
}

int main(int count, char **values) {
  arguments a;
  igpt_error error;
  igpt_model *model = NULL;
  if (count < 2 || !strcmp(values[1], "--help") || !strcmp(values[1], "-h")) return fputs(help, stdout) < 0;
  if (parse(count, values, &a)) return 1;
  if (!a.command) return fail("give a command; igpt-c --help lists them");
  if (!a.bundle) return fail("give a bundle with --bundle, or in IGPT_BUNDLE");
  if (igpt_open(a.bundle, &a.open, &model, &error)) return fail("%s", error.message);
  const int failed = run(model, &a);
  igpt_close(&model);
  return failed;
}
