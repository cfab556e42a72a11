/**
 * Runs ImageGPT bundles of {@code igpt-export} on ONNX Runtime's shared library, by foreign functions: no other
 * dependency.
 *
 * <p>Java 22 or newer is needed. Start it with {@code --enable-native-access=ALL-UNNAMED}. Nothing is printed. ONNX
 * Runtime's telemetry is switched off.
 *
 * <pre>{@code
 * try (Model model = Model.open(Path.of("my-bundle"));
 *         Run run = model.complete(new Picture(width, height, rgb), new SamplingOptions().n(4).seed(1))) {
 *     for (Step step : run) {
 *         System.out.println(step.position() + ": " + Arrays.toString(step.tokens()));
 *     }
 *     List<Picture> pictures = run.images();
 * }
 * }</pre>
 */
package igpt;
