package igpt;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The golden pack: what a client in any language must compute. */
class GoldenTest {
    private static final Gson GSON = new Gson();
    private static JsonObject cases;
    private static Map<String, Picture> pictures;
    private static Model model;

    @BeforeAll
    static void open() throws IOException {
        cases = JsonParser.parseString(Files.readString(Places.GOLDEN.resolve("cases.json"))).getAsJsonObject();
        pictures = objects("pictures").stream().collect(Collectors.toMap(
            one -> one.get("name").getAsString(),
            one -> new Picture(one.get("width").getAsInt(), one.get("height").getAsInt(), rgb(one))));
        model = Model.open(Places.BUNDLE, Places.options());
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void randomNumbers() {
        for (JsonObject one : objects("threefry")) {
            int[] key = words(one.getAsJsonArray("key")), counter = words(one.getAsJsonArray("counter"));
            int[] result = words(one.getAsJsonArray("result"));
            long found = Threefry.encrypt(key[0], key[1], counter[0], counter[1]);
            assertEquals((long) result[0] << 32 | result[1] & 0xffffffffL, found);
        }
        for (JsonObject one : objects("uniforms")) {
            long seed = Long.parseUnsignedLong(one.get("seed").getAsString());
            int sample = one.get("sample").getAsInt(), position = one.get("position").getAsInt();
            assertEquals(one.get("uniform").getAsDouble(), Threefry.uniform(seed, sample, position));
        }
    }

    @Test
    void tokensOfPictures() {
        for (JsonObject one : objects("pictures")) {
            String name = one.get("name").getAsString();
            assertArrayEquals(GSON.fromJson(one.get("tokens"), int[].class), model.tokens(pictures.get(name)), name);
        }
    }

    @Test
    void picturesOfTokens() {
        for (JsonObject one : objects("images")) {
            int[] tokens = GSON.fromJson(one.get("tokens"), int[].class);
            List<Picture> found = model.images(new int[][] {tokens, tokens});
            for (Picture picture : found) {
                assertArrayEquals(rgb(one), picture.data());
            }
        }
    }

    @Test
    void classesFeaturesAndNats() {
        JsonObject expected = objects("model").get(0);
        Picture picture = pictures.get(expected.get("picture").getAsString());

        float[] probabilities = GSON.fromJson(expected.get("probabilities"), float[].class);
        List<Classification> classes = model.classify(picture);
        assertEquals(probabilities.length, classes.size());
        for (Classification one : classes) {
            assertEquals(probabilities[model.info().labels().indexOf(one.label())], one.value(), 1e-4);
        }
        for (int i = 1; i < classes.size(); i++) {
            assertEquals(1, Float.compare(classes.get(i - 1).value(), classes.get(i).value()));
        }

        float[][] rows = GSON.fromJson(expected.get("features"), float[][].class);
        Features features = model.features(picture);
        assertEquals(rows.length, features.rows());
        assertEquals(rows[0].length, features.columns());
        for (int i = 0; i < features.data().length; i++) {
            assertEquals(rows[i / features.columns()][i % features.columns()], features.data()[i], 1e-4);
        }

        Score score = model.score(picture);
        assertArrayEquals(GSON.fromJson(expected.get("nats"), float[].class), score.nats(), 1e-3f);
        assertEquals(expected.get("nats_per_token").getAsFloat(), score.natsPerToken(), 1e-3f);
    }

    @Test
    void completionsStepByStep() {
        for (JsonObject one : objects("completions")) {
            int[][] expected = GSON.fromJson(one.get("tokens"), int[][].class);
            int[] all = model.tokens(pictures.get(one.get("picture").getAsString()));
            int[] given = Arrays.copyOf(all, one.get("keep").getAsInt());
            try (Run run = model.generate(given, options(one))) {
                int position = given.length;
                for (Step step : run) {
                    assertEquals(position, step.position());
                    for (int row = 0; row < expected.length; row++) {
                        assertEquals(expected[row][position], step.tokens()[row], () -> one.toString());
                    }
                    position++;
                }
                assertEquals(64, position);
                assertArrayEquals(expected, run.tokens());
            }
        }
    }

    @Test
    void completionsInOneCall() {
        int done = 0;
        for (JsonObject one : objects("completions")) {
            int keep = one.get("keep").getAsInt();
            if (keep % 8 == 0 && keep < 64) {
                Picture picture = pictures.get(one.get("picture").getAsString());
                SamplingOptions options = options(one).keepRows(keep / 8);
                Completion found = model.completeOnce(picture, options);
                int[][] expected = GSON.fromJson(one.get("tokens"), int[][].class);
                assertArrayEquals(expected, found.tokens(), () -> one.toString());
                assertArrayEquals(expected, model.complete(picture, options).tokens());
                List<Picture> painted = model.images(expected);
                for (int i = 0; i < painted.size(); i++) {
                    assertArrayEquals(painted.get(i).data(), found.images().get(i).data());
                }
                done++;
            }
        }
        assertEquals(true, done > 0);
    }

    private static SamplingOptions options(JsonObject one) {
        return new SamplingOptions().n(one.get("n").getAsInt())
            .seed(Long.parseUnsignedLong(one.get("seed").getAsString()))
            .temperature(one.get("temperature").getAsDouble()).topK(one.get("top_k").getAsLong())
            .topP(one.get("top_p").getAsDouble());
    }

    private static List<JsonObject> objects(String key) {
        JsonElement found = cases.get(key);
        if (found.isJsonObject()) {
            return List.of(found.getAsJsonObject());
        }
        return StreamSupport.stream(found.getAsJsonArray().spliterator(), false)
            .map(JsonElement::getAsJsonObject).toList();
    }

    private static byte[] rgb(JsonObject one) {
        return Base64.getDecoder().decode(one.get("rgb").getAsString());
    }

    private static int[] words(JsonArray words) {
        return StreamSupport.stream(words.spliterator(), false)
            .mapToInt(word -> Integer.parseUnsignedInt(word.getAsString(), 16)).toArray();
    }
}
