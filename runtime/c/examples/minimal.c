/* minimal.c - completes a picture in one call, and prints the tokens of what was drawn.
 *
 *   minimal BUNDLE LIBRARY */
#include <igpt.h>
#include <inttypes.h>
#include <stdio.h>

int main(int count, char **values) {
  igpt_error error = {.message = "usage: minimal BUNDLE LIBRARY"};
  igpt_open_options open = IGPT_OPEN_OPTIONS_INIT;
  igpt_sampling_options options = IGPT_SAMPLING_OPTIONS_INIT;
  igpt_model_info info = IGPT_MODEL_INFO_INIT;
  igpt_model *model = NULL;
  static const uint8_t rgb[2 * 1 * 3] = {255, 200, 0, 0, 60, 120}; /* sunshine over the sea */
  const igpt_image image = {rgb, sizeof rgb, 2, 1};
  static int64_t tokens[1 << 16];
  open.library = count > 2 ? values[2] : NULL;
  options.n = 1, options.seed = 7;
  igpt_status status = IGPT_ERROR_OPTION;
  if (count > 2) status = igpt_open(values[1], &open, &model, &error);
  if (!status) status = igpt_info(model, &info, &error);
  if (!status)
    status = igpt_complete(model, &image, info.height / 2, &options, NULL, 0, tokens, 1 << 16, &error);
  for (int64_t i = 0; !status && i < info.n_positions; i++)
    printf("%" PRId64 "%c", tokens[i], (i + 1) % info.width ? ' ' : '\n');
  if (status) fprintf(stderr, "%s\n", error.message);
  igpt_close(&model);
  return status != IGPT_OK;
}
