/* loop BUNDLE N REPEATS: draws N completions of half a grey picture step by step, once to warm up and REPEATS times. */
#define _POSIX_C_SOURCE 200809L
#include <igpt.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
  const uint8_t grey[] = {128, 128, 128};
  const igpt_image image = {grey, sizeof grey, 1, 1};
  igpt_open_options opening = IGPT_OPEN_OPTIONS_INIT;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  igpt_model *model = NULL;
  igpt_error error = {0};
  if (argc != 4) return 2;
  opening.runtime_library = getenv("IGPT_ORT_LIBRARY");
  opening.spinning = 1;
  options.n = atoi(argv[2]);
  if (!igpt_open(argv[1], &opening, &model, &error) && !igpt_info(model, &info, &error)) {
    const size_t positions = (size_t)info.n_positions, count = (size_t)options.n * positions;
    int64_t *primer = calloc(positions, sizeof *primer), *tokens = calloc(count, sizeof *tokens);
    int failed = !primer || !tokens || igpt_tokens(model, &image, primer, positions, &error);
    for (int i = 0; !failed && i <= atoi(argv[3]); i++) {
      const double start = now();
      failed = igpt_generate(model, primer, positions / 2, &options, NULL, NULL, tokens, count, &error);
      if (!failed && i) printf("%.6f ", now() - start);
    }
    puts("");
    for (size_t i = 0; !failed && i < count; i++) printf("%lld ", (long long)tokens[i]);
    puts("");
    free(tokens);
    free(primer);
  }
  if (error.status) fprintf(stderr, "%s\n", error.message);
  igpt_close(&model);
  return (int)error.status;
}
